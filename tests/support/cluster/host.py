"""A machine of the mesh's own: mount, network and process namespaces that end with whoever made them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.support.builds import MissingError, require

BRIDGE = "br0"
GATEWAY = "10.244.0.1"
DNS = "10.244.255.10"
LAPTOP = "10.244.255.9"
POD_CIDR = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
LAPTOP_NAMESPACE = "laptop"
LAPTOP_UID = 1000


def check_host() -> None:
    """Whether this machine can have one.

    Raises:
        MissingError: it lacks root, or a program.
    """
    if os.geteuid() != 0:
        raise MissingError("needs root: the mesh has network namespaces of its own")
    for program, package in (("ip", "iproute2"), ("iptables", "iptables"), ("nsenter", "util-linux")):
        require(program, package)
    for program in ("unshare", "setpriv"):
        require(program, "util-linux")


class Host:
    """The machine, up inside the block.

    Args:
        folder: where it keeps `private`, a file system that only its processes see.
    """

    def __init__(self, folder: Path) -> None:
        self.private = folder / "private"
        self.private.mkdir()
        self._log = folder / "host.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """Of its first process, seen from outside."""

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("host_init.py")
        addresses = [f"{GATEWAY}/16", f"{DNS}/16"]
        namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        init = [sys.executable, "-I", "-S", str(script), str(self.private), BRIDGE, SERVICES, *addresses]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "--", *init], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__(None, None, None)
            raise MissingError(f"no namespaces can be made here: {self._log.read_text()[-500:]}")
        self.pid = psutil.Process(self._process.pid).children()[0].pid
        self._add_laptop()
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    @property
    def enter(self) -> list[str]:
        """What to put before a command so that it runs on this machine."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--wd=/", "--"]

    @property
    def network(self) -> Path:
        """Its own network namespace, that of the control plane."""
        return Path(f"/proc/{self.pid}/ns/net")

    def namespace(self, name: str) -> Path:
        """A pod's network namespace, or the laptop's, by its name."""
        return self.inside(Path("/run/netns", name))

    def inside(self, path: Path | str) -> Path:
        """A file of this machine, seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def run(self, *command: str) -> str:
        """A command on this machine, to its end: its output.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def _add_laptop(self) -> None:
        """A namespace on the bridge with no sidecar."""
        name, link = LAPTOP_NAMESPACE, "to-laptop"
        self.run("ip", "netns", "add", name)
        self.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        self.run("ip", "link", "set", link, "master", BRIDGE, "up")
        inside: Sequence[Sequence[str]] = (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{LAPTOP}/16", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", GATEWAY),
        )
        for command in inside:
            self.run("ip", "-n", name, *command)
