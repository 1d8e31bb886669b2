"""What names were given out for an address, so that a connection to the address can be judged by what was asked for. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from local_proxy.intercept.addresses import IPAddress

VIRTUAL = IPv4Network("198.18.0.0/15")
"""Addresses that stand for names without one: set aside for measurements (RFC 2544), so they lead nowhere else."""
MOST_ADDRESSES = 8192
MOST_NAMES = 16


class Names:
    """Names by address: the latest given out are remembered. Used from two threads; every step is one of a dict's own."""

    def __init__(self) -> None:
        self._names: OrderedDict[IPAddress, tuple[str, ...]] = OrderedDict()
        self._virtual: dict[str, IPv4Address] = {}
        self._meant: dict[IPAddress, str] = {}
        self._given = 0

    def remember(self, name: str, addresses: Iterable[IPAddress]) -> None:
        """A name was answered with these addresses."""
        for address in addresses:
            others = [known for known in self._names.pop(address, ()) if known != name]
            self._names[address] = (name, *others)[:MOST_NAMES]
        while len(self._names) > MOST_ADDRESSES:
            self._names.popitem(last=False)

    def of(self, address: IPAddress) -> tuple[str, ...]:
        """The names that an address was given out for, the latest first."""
        if meant := self._meant.get(address):
            return (meant,)
        return self._names.get(address, ())

    def stand_in(self, name: str) -> IPv4Address:
        """The address that stands for a name without one, always the same.

        The first is used again when there are no more, after 131,070 names.
        """
        address = self._virtual.get(name)
        if address is None:
            address = VIRTUAL[1 + self._given % (VIRTUAL.num_addresses - 2)]
            self._given += 1
            self._virtual.pop(self._meant.get(address, ""), None)  # it gets another one when it is asked for again
            self._virtual[name] = address
            self._meant[address] = name
        return address

    def meant(self, address: IPAddress) -> str | None:
        """The name that an address stands for, if it stands for one."""
        return self._meant.get(address)
