"""/etc/resolv.conf: this machine's name servers and search list (resolv.conf(5)). Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

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
