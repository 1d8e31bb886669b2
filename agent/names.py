"""What laptops ask about names and destinations: where a name leads, and what would become of a connection.

A name is looked up as the pod does it, with its search domains. In a mesh on one machine the mesh's names have no address
of their own: a connection to one is a CONNECT to the name.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from agent.judge import Judge, Verdict
from agent.settings import AgentSettings

Answer = tuple[HTTPStatus, dict[str, Any]]
"""A status and a JSON object."""


@dataclass(frozen=True, slots=True)
class Names:
    """The questions.

    Args:
        judge: looks names up, and judges.
        virtual: the names that have no address of their own, in lower case.
    """

    judge: Judge
    virtual: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: AgentSettings, judge: Judge) -> Names:
        """Those of an agent."""
        full = (f"{service}.{settings.namespace}.svc.cluster.local" for service in settings.services)
        short = (domain for domain in settings.mesh_domains if not domain.startswith("*"))
        return cls(judge, frozenset((*short, *full)) if settings.mesh_outbound else frozenset())

    async def name(self, host: str) -> Answer:
        """Where a name leads.

        200 with `addresses` and the full `name`; no addresses where the name has none (of these families), or is `virtual`.
        404 where there is no such name, 503 where that can't be said; both with a `reason`.
        """
        if _plain(host) in self.virtual:
            return HTTPStatus.OK, {"addresses": [], "name": _plain(host), "virtual": True}
        try:
            async with asyncio.timeout(self.judge.timeout):
                found = await self.judge.resolve(host)
        except UnicodeError:  # a label is empty or too long
            return HTTPStatus.NOT_FOUND, {"reason": f"{host} is no name"}
        except (OSError, TimeoutError, ValueError) as error:
            return _failed(host, error)
        addresses = list(dict.fromkeys(map(str, found.addresses)))
        return HTTPStatus.OK, {"addresses": addresses, "name": _plain(found.name or host)}

    async def destination(self, authority: str, session: str, host: str = "") -> Answer:
        """What would become of a connection of a session's.

        200 with the `address`, empty where the authority is a virtual name's; else the status that a CONNECT would get,
        and the `reason`.
        """
        if _plain(authority.rpartition(":")[0] or authority) in self.virtual:
            return HTTPStatus.OK, {"address": "", "virtual": True}
        verdict: Verdict = await self.judge.judge(authority, session, host)
        if verdict.address:
            return HTTPStatus.OK, {"address": verdict.address}
        return verdict.status, {"reason": verdict.reason}


def _failed(host: str, error: Exception) -> Answer:
    code = error.errno if isinstance(error, socket.gaierror) else None
    if code == socket.EAI_NODATA:  # the name exists
        return HTTPStatus.OK, {"addresses": [], "name": _plain(host)}
    if code == socket.EAI_NONAME:
        return HTTPStatus.NOT_FOUND, {"reason": f"there is no {host}"}
    return HTTPStatus.SERVICE_UNAVAILABLE, {"reason": f"{host} can't be looked up: {str(error) or 'no answer in time'}"}


def _plain(host: str) -> str:
    return host.lower().rstrip(".")
