"""/etc/resolv.conf: this machine's name servers and search list (resolv.conf(5)), as they are now."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from local_proxy.intercept.addresses import IPAddress

PATH = "/etc/resolv.conf"
_MOST_SERVERS = 3  # MAXNS: libc asks no more


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What libc reads of it."""

    name_servers: tuple[str, ...] = ("127.0.0.1",)
    """With a zone where they have one."""
    search: tuple[str, ...] = ()
    """Domains that are tried with short names, in lower case, without dots around them."""

    @property
    def addresses(self) -> frozenset[IPAddress]:
        """The name servers' addresses."""
        return frozenset(ipaddress.ip_address(server.partition("%")[0]) for server in self.name_servers)


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read the file; what can't be understood is skipped, as by libc."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                try:
                    ipaddress.ip_address(server.partition("%")[0])
                except ValueError:
                    continue
                servers.append(server)
            case ["search" | "domain", *domains]:
                search = tuple(domain.strip(".").lower() for domain in domains if domain.strip("."))
    return ResolvConf(tuple(servers[:_MOST_SERVERS]) or ResolvConf().name_servers, search)


class Current:
    """The file as it is whenever it is asked for, since a network that changes or a VPN writes it anew; from any thread.

    Args:
        path: of the file.
    """

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._read: tuple[tuple[int, ...], ResolvConf] = ((), ResolvConf())

    def now(self) -> ResolvConf:
        """What it says; without the file what libc assumes."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - at every question
            version = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
            if version != self._read[0]:
                self._read = (version, parse_resolv_conf(Path(self._path).read_text(errors="replace")))
        except OSError:
            return ResolvConf()
        return self._read[1]

    def __contains__(self, address: object) -> bool:
        """Whether an address is a name server's."""
        return address in self.now().addresses
