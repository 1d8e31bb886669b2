"""How the agent finds the replica of the control plane that leads."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent import control_plane
from agent.control_plane import ControlPlaneClient
from agent.reports import Reports
from agent.settings import ControlPlane
from hairpin.certificates import CertificateAuthority
from hairpin.model.mesh import SocketAddress


class Replicas:
    """Answers as they would one after another, and takes the report when there is no further answer."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self._answers = list(answers)
        self.taken = asyncio.Event()

    async def reports(self, request: web.Request) -> web.Response:
        if self._answers:
            status, message = self._answers.pop(0)
            return web.json_response({"message": message}, status=status)
        await request.content.readany()
        self.taken.set()
        return web.json_response({})


@pytest.fixture
def pauses(monkeypatch):
    found: list[float] = []

    class Asyncio:
        def __getattr__(self, name):
            return getattr(asyncio, name)

        async def sleep(self, seconds):
            found.append(seconds)

    monkeypatch.setattr(control_plane, "asyncio", Asyncio())
    return found


async def reported(replicas, folder):
    app = web.Application()
    app.add_routes([web.post("/v1/agents/agent-0/reports", replicas.reports)])
    (folder / "token").write_text("token")
    (folder / "ca").write_text(CertificateAuthority.create("test").certificate)
    async with TestServer(app) as server:
        settings = ControlPlane(
            api=str(server.make_url("")).rstrip("/"),
            xds=SocketAddress("127.0.0.1", 1),
            authority=folder / "ca",
            token_file=folder / "token",
        )
        async with ControlPlaneClient.connect(settings) as client:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(client.report("agent-0", Reports()))
                async with asyncio.timeout(30):
                    await replicas.taken.wait()
                task.cancel()


async def test_the_leader_is_looked_for_without_long_pauses(tmp_path, pauses):
    other = 503, "controller-a is not the leader; controller-b is"
    await reported(Replicas(*[other] * 12), tmp_path)
    assert max(pauses) == 0.25


async def test_a_control_plane_in_trouble_is_asked_less_and_less(tmp_path, pauses):
    await reported(Replicas(*[(503, "no healthy upstream")] * 8), tmp_path)
    assert all(before < after or after == 2.0 for before, after in pairwise(pauses[:8]))
    assert max(pauses) == 2.0
