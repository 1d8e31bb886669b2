"""What interception needs of a session: the gateway's port, the rules, and the agent's answers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address

import psutil

from hairpin.errors import UnavailableError
from hairpin.model.egress import Address
from local_proxy.intercept.resolver import CANNOT_SAY, NO_SUCH_NAME, Meaning
from local_proxy.intercept.strategy import Interception, Mesh, interception
from local_proxy.link import Link
from local_proxy.options import RunOptions
from local_proxy.questions import Questions
from local_proxy.rule_flags import all_rules, local_hosts, registry_hosts
from local_proxy.sockets import listening_sockets
from local_proxy.target.options import FilesMode

ADDRESSES_SECONDS = 5.0
"""How long this machine's own addresses are believed: networks come and go."""
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with


@contextlib.asynccontextmanager
async def way_into_mesh(
    options: RunOptions, link: Link, *, http_proxy: int, gateway: int, tell: Callable[[str], None]
) -> AsyncIterator[Interception]:
    """How the command's connections come to the mesh, during the block.

    Args:
        options: the user's.
        link: the session, whichever it is by then.
        http_proxy: the port of the laptop's HTTP proxy.
        gateway: the port of its gateway.
        tell: says a line to the user; from any thread.

    Raises:
        UnavailableError: it must be interception, and can't.
    """
    async with Questions.opened(
        lambda: link.laptop.questions if link.laptop is not None else None,
        lambda: [agent.name for agent in link.session.status.agents],
    ) as questions:
        rules = all_rules(options.rules, os.environ)
        mesh = Mesh(
            gateway=gateway,
            answers=link.answers,
            http_proxy=http_proxy,
            rules=replace(rules, listened=OwnListeners()),
            local_hosts=(*local_hosts(options.rules), *registry_hosts(rules)),
            meaning=lambda name: meaning(questions, name),
            refusal=lambda target, name: refusal(questions, target, name),
        )
        mounts = options.from_target.files is FilesMode.MOUNT
        async with interception(options.intercept, mesh, udp=options.udp, tell=tell, mounts=mounts) as way:
            yield way


async def meaning(questions: Questions, name: str) -> Meaning:
    """What a name means in the mesh, as the agent says."""
    try:
        answer = await questions.name(name)
    except UnavailableError:
        return CANNOT_SAY
    if not answer.exists:
        return NO_SUCH_NAME
    return Meaning(answer.addresses, virtual=answer.virtual)


async def refusal(questions: Questions, target: str, name: str) -> str:
    """Why the agent would refuse a connection; nothing if it wouldn't, or can't be asked: it judges the connection itself."""
    try:
        verdict = await questions.destination(target, name)
    except UnavailableError:
        return ""
    return "" if verdict.allowed else verdict.reason


class OwnListeners:
    """Whether something on this machine listens at one of its own addresses. Called from the supervisor's thread."""

    def __init__(self) -> None:
        self._addresses: frozenset[Address] = frozenset()
        self._until = 0.0

    def __call__(self, address: Address, port: int) -> bool:
        """Whether it does."""
        if time.monotonic() >= self._until:
            self._addresses = _own_addresses()
            self._until = time.monotonic() + ADDRESSES_SECONDS
        if address not in self._addresses:
            return False
        return any(
            socket.port == port and (socket.host in _ANY or ip_address(socket.host) == address)
            for socket in listening_sockets()
        )


def _own_addresses() -> frozenset[Address]:
    found = set()
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            with contextlib.suppress(ValueError):  # a hardware address
                found.add(ip_address(entry.address.partition("%")[0]))
    return frozenset(found)
