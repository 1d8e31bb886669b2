"""The first process of the mesh's own machine: run as a script, in new mount, network and process namespaces.

It makes what a node has before any pod (a bridge, an empty list of network namespaces), says `ready`, adopts orphans, and
ends when its standard input does. With it the kernel ends every process inside, and the namespaces with them: nothing is
left behind, however the tests end.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_KERNEL = {
    "net/ipv4/ip_forward": "1",
    # A pod that reaches another by a cluster IP goes by way of the gateway on the same bridge; it is not to learn of a shorter way.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


def main(private: str, bridge: str, services: str, *addresses: str) -> None:
    """Sets up, serves, ends."""
    _run("mount", "-t", "proc", "proc", "/proc")
    Path("/run/netns").mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "netns", "/run/netns")
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "private", private)
    for name, value in _KERNEL.items():
        Path("/proc/sys", name).write_text(value)
    _run("ip", "link", "set", "lo", "up")
    # A fixed hardware address: else the bridge's is that of its lowest port, and changes as pods come and go.
    _run("ip", "link", "add", bridge, "address", "02:00:00:00:00:01", "type", "bridge", "forward_delay", "0")
    for address in addresses:
        _run("ip", "addr", "add", address, "dev", bridge)
    _run("ip", "link", "set", bridge, "up")
    # kube-proxy rewrites them after the kernel has found a route for them.
    _run("ip", "route", "add", services, "dev", bridge)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that a child's end wakes the loop below
    signal.set_wakeup_fd(_pipe_to_wake())
    os.write(1, b"ready\n")
    _adopt_until_end_of_input()


_WAKE: list[int] = []


def _pipe_to_wake() -> int:
    read, write = os.pipe()
    os.set_blocking(write, False)
    _WAKE.append(read)
    return write


def _adopt_until_end_of_input() -> None:
    while True:
        readable, _, _ = select.select([0, _WAKE[0]], [], [])
        if 0 in readable and not os.read(0, 4096):
            return
        if _WAKE[0] in readable:
            os.read(_WAKE[0], 4096)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
