"""The agents' API in Kubernetes: certificates, reports, egress policies. Laptops have the API server instead."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hairpin.errors import InvalidFieldError, UnavailableError
from hairpin.model.mesh import spiffe_id
from hairpin.model.version import check_agent
from xds_server.server.http import BODY_LIMIT, agent_certificate, agent_version, errors, version
from xds_server.server.kubernetes.egress import Egress, lines
from xds_server.server.tokens import ForbiddenError, UnauthorizedError
from xds_server.sources.kubernetes.agents import AgentCaller, AgentReports, TokenReviewer, is_agent

if TYPE_CHECKING:
    from hairpin.certificates import CertificateAuthority
    from xds_server.server.kubernetes.leader import Election
    from xds_server.server.kubernetes.settings import Settings
    from xds_server.sources.kubernetes.cluster import ClusterWatch

log = logging.getLogger(__name__)

REPORT_SILENCE = 30.0
"""Seconds without a report after which a replica is taken for gone; it repeats itself every ten."""
POLICY_SILENCE = 20.0
"""Seconds after which a policy is sent again, so that a dead connection is noticed."""

_LONGEST_REPORT = 1 << 20


class AgentsApi:
    """Handlers of the API.

    Args:
        cluster: the informers.
        settings: trust domain and more.
        authority: signs agents' certificates.
        reviewer: says whose a token is.
        reports: where reports go.
        election: only the leader takes reports.
        egress: what agents are told.
    """

    def __init__(
        self,
        cluster: ClusterWatch,
        settings: Settings,
        authority: CertificateAuthority,
        *,
        reviewer: TokenReviewer,
        reports: AgentReports,
        election: Election,
        egress: Egress,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._authority = authority
        self._reviewer = reviewer
        self._reports = reports
        self._election = election
        self._egress = egress
        self._taking = False
        self._streams: dict[int, web.Request] = {}
        self._reporting: dict[int, web.Request] = {}

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[errors], client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.get("/v1/version", version),
                web.get("/ready", self.ready),
                web.post("/v1/certificates", self.create_certificate),
                web.post("/v1/agents/{name}/reports", self.reports),
                web.get("/v1/agents/{name}/policies", self.policies),
            ]
        )
        return app

    async def ready(self, request: web.Request) -> web.Response:
        """Whether agents may be sent here: at least one namespace is known, or none is to be served."""
        del request
        known, served = self._cluster.known, frozenset(self._cluster.namespaces)
        body = {"leading": self._election.leading, "leader": self._election.holder, "problems": self._cluster.problems}
        return web.json_response({"namespaces": sorted(known), **body}, status=200 if known or not served else 503)

    async def create_certificate(self, request: web.Request) -> web.Response:
        """The agent's certificate, for its pod's token."""
        caller = await self._caller(request)
        identity = spiffe_id(self._settings.trust_domain, caller.pod.namespace, caller.service_account)
        return await agent_certificate(request, self._authority, identity)

    async def reports(self, request: web.Request) -> web.StreamResponse:
        """A replica's reports, as long as its request's body goes on. When it ends, the replica is gone."""
        caller = await self._named(request)
        if not self._taking:
            return self._not_the_leader()
        stream = self._reports.open(caller.pod, agent_version(request).text)
        self._reporting[id(request)] = request
        log.info("agent %s reports", caller.pod)
        try:
            await self._read_reports(request, caller, stream)
        except TimeoutError:
            log.warning("agent %s: no report for %g s", caller.pod, REPORT_SILENCE)
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise InvalidFieldError("report", str(error), "can't be read", "send one JSON object a line") from error
        finally:
            del self._reporting[id(request)]
            self._reports.close(caller.pod, stream)
            log.info("agent %s no longer reports", caller.pod)
        return web.json_response({})

    async def _read_reports(self, request: web.Request, caller: AgentCaller, stream: object) -> None:
        rest = b""
        while True:
            async with asyncio.timeout(REPORT_SILENCE):
                chunk = await request.content.readany()
            if not chunk:
                return
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_REPORT:
                raise ValueError(f"a line of more than {_LONGEST_REPORT} bytes")
            for line in filter(None, complete):
                report = json.loads(line)
                if "tunnels" in report:
                    self._reports.report(caller.pod, stream, frozenset(map(str, report["tunnels"])))

    async def policies(self, request: web.Request) -> web.StreamResponse:
        """The rules of each session that leaves at this agent: at first and at each change."""
        caller = await self._named(request)
        if not self._egress.knows(caller.pod.namespace):
            raise UnavailableError(f"namespace {caller.pod.namespace} is not known yet")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self._streams[id(request)] = request
        try:
            async for line in lines(
                self._egress, self._cluster, caller.pod.namespace, caller.service_account, silence=POLICY_SILENCE
            ):
                await response.write(line)
        finally:
            del self._streams[id(request)]
        return response

    def take_reports(self) -> None:
        """This one leads now."""
        self._taking = True

    def stop_reports(self) -> None:
        """Another leads: the agents have to find it."""
        self._taking = False
        _hang_up(self._reporting)
        self._reports.clear()

    def close(self) -> None:
        """End the streams, so that the server can stop."""
        _hang_up({**self._reporting, **self._streams})

    def _not_the_leader(self) -> web.Response:
        # The next attempt is to be a connection of its own, which may reach the leader.
        leader = self._election.holder or "nobody"
        status: dict[str, Any] = {"kind": "Status", "status": "Failure", "code": 503, "reason": "ServiceUnavailable"}
        message = f"{self._election.identity} is not the leader; {leader} is"
        response = web.json_response({**status, "message": message}, status=503)
        response.force_close()
        return response

    async def _named(self, request: web.Request) -> AgentCaller:
        caller = await self._caller(request)
        name = request.match_info["name"]
        if name not in caller.names:
            raise ForbiddenError(f"the token is {caller.pod}'s, not {name}'s")
        return caller

    async def _caller(self, request: web.Request) -> AgentCaller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("no bearer token; an agent sends its pod's, made for the audience `hairpin`")
        caller = await self._reviewer.caller(token.strip())
        if caller is None:
            raise UnauthorizedError("the token is no pod's of this cluster, or was not made for the audience `hairpin`")
        if not is_agent(self._cluster.pod(caller.pod), caller.service_account):
            problem = "is no agent of a namespace that is served"
            if caller.pod.namespace in self._cluster.namespaces and caller.pod.namespace not in self._cluster.known:
                raise UnavailableError(f"namespace {caller.pod.namespace} is not known yet")
            raise ForbiddenError(f"pod {caller.pod} of account {caller.service_account} {problem}")
        check_agent(agent_version(request))
        return caller


def _hang_up(requests: dict[int, web.Request]) -> None:
    for request in list(requests.values()):
        if request.transport is not None:
            request.transport.close()
