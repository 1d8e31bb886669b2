"""What can be asked about a configuration before an Envoy serves it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hairpin.envoy.binary import find_envoy
from hairpin.envoy.child import Child
from hairpin.envoy.failure import LOG_FORMAT, RefusedError, bind_failure, exit_in_words, refusal
from hairpin.errors import HairpinError
from hairpin.files import write_private

VALIDATE_SECONDS: Final = 30.0


async def validate(bootstrap: Mapping[str, Any], binary: Path | None = None) -> None:
    """Asks Envoy whether it would take a configuration, without listening anywhere (`--mode validate`).

    It does not look for a missing cluster that a route or a TCP proxy names, nor bind.

    Raises:
        RefusedError: it would not; its `reason` is Envoy's.
        HairpinError: Envoy could not be asked.
    """
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hairpin-") as directory:
        file = Path(directory) / "bootstrap.json"
        write_private(file, json.dumps(bootstrap).encode())
        command = [str(binary or find_envoy()), "--mode", "validate", "--config-path", str(file)]
        command += ["--log-level", "error", "--log-format", LOG_FORMAT, "--log-format-escaped"]
        try:
            child = await Child.spawn(
                command,
                on_stdout=lambda _: None,
                on_stderr=lambda line: lines.append(line.decode(errors="replace")),
                on_exit=lambda _: None,
            )
        except OSError as e:
            raise HairpinError(f"Envoy can't be started: {e}") from e
        try:
            if not await child.wait(VALIDATE_SECONDS):
                raise HairpinError(f"Envoy did not judge the configuration within {VALIDATE_SECONDS:g} s")
        finally:
            await child.kill()
    if child.code:
        reason = refusal(lines)
        if reason is None:
            raise HairpinError(f"Envoy ended with {exit_in_words(child.code)} while it judged the configuration")
        raise RefusedError("", reason)


def check_addresses(name: str, bootstrap: Mapping[str, Any]) -> None:
    """Whether the static listeners' addresses can be bound.

    Envoy alone finds that out too late: by default (SO_REUSEPORT) it silently shares a port with another Envoy.

    Raises:
        HairpinError: one can't; it names the address and who holds it.
    """
    for address in _listen_addresses(bootstrap):
        _check_free(name, address)


def _listen_addresses(bootstrap: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The TCP addresses its static listeners bind; reverse tunnels' `rc://…` and internal listeners are none."""
    for listener in bootstrap.get("static_resources", {}).get("listeners", ()):
        address = listener.get("address", {}).get("socket_address", {})
        host, port = address.get("address", ""), address.get("port_value", 0)
        if port and address.get("protocol", "TCP") == "TCP" and listener.get("bind_to_port", True):
            with contextlib.suppress(ValueError):
                yield str(ipaddress.ip_address(host)), port


def _check_free(name: str, address: tuple[str, int]) -> None:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(address)
        except OverflowError:
            return  # no port at all: Envoy says it better
        except OSError as e:
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise bind_failure(name, shown, os.strerror(e.errno or 0)) from e
