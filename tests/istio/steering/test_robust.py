"""A laptop that sleeps, one whose network changes, agents that are rolled out: the session comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from signal import SIGCONT, SIGSTOP, Signals

import psutil
import pytest

from tests.support.cluster.host import GATEWAY, LAPTOP, LAPTOP_NAMESPACE
from tests.support.cluster.processes import words_of
from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CLUSTER, ME = "checkout", "laptop of alice"
OTHER_ADDRESS = "10.244.255.19"
AWAY_SECONDS = 12.0
"""Longer than a connection that nobody answers is believed in."""
MOST_LINES = 8
"""Of hairpin's own, of one fault with two replicas: what is lost, what is tried, what is back, each once."""


@contextlib.contextmanager
def asleep(pid: int) -> Iterator[list[psutil.Process]]:
    """hairpin, its Envoy, the command and all that they started, stopped during the block; the command's own."""
    hairpin = psutil.Process(pid)
    processes = [hairpin, *hairpin.children(recursive=True)]

    def send(number: Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that was about to end
                process.send_signal(number)

    send(SIGSTOP)
    try:
        yield [process for process in processes if "tests.support.cluster.app" in words_of(process)[:3]]
    finally:
        send(SIGCONT)


async def lines_since(run, start: int) -> list[str]:
    """What hairpin said since then, without the requests; a moment later, so that a flood would be seen."""
    await asyncio.sleep(2)
    return [line for line in run.errors[start:] if line.startswith("hairpin ") and "->" not in line]


async def test_a_laptop_that_slept_longer_than_its_lease_is_back_by_itself(mesh):
    async with mesh.laptop("alice", "alice", "--lease", "2") as run:
        session, start = await run.session(), len(run.errors)

        async def ended():
            return await mesh.cluster.client.get("Session", session, SHOP) is None

        with asleep(run.pid) as command:
            await eventually(ended, "the lease has run out", seconds=60)
            await mesh.answered_by(CLUSTER, "alice")
            await asyncio.sleep(6)
        await run.said_since(start, r"this machine slept, or hairpin was stopped, for \d+ s")
        await run.said_since(start, rf"session {session} is gone, .*: session \S+ takes its place")
        await mesh.answered_by(ME, "alice")
        lines = await lines_since(run, start)
        assert len(lines) <= MOST_LINES, lines
        assert command and all(process.is_running() for process in command)


async def test_a_network_that_goes_and_comes_back_with_another_address_costs_no_session(mesh):
    def network(*commands: str) -> None:
        for command in commands:
            mesh.cluster.host.run("ip", "-n", LAPTOP_NAMESPACE, *command.split())

    route = f"route add default via {GATEWAY}"
    async with mesh.laptop("alice", "alice", "--lease", "120") as run:
        session, start = await run.session(), len(run.errors)
        try:
            # Nobody is told: no connection is closed at either end.
            network("link set eth0 down", "addr flush dev eth0")

            async def cluster_answers():
                return (await mesh.ask("alice"))["who"] == CLUSTER

            await eventually(cluster_answers, "the cluster answers")
            await run.said_since(start, "the API server at .* can't be reached")
            await asyncio.sleep(AWAY_SECONDS)
            network(f"addr add {OTHER_ADDRESS}/16 dev eth0", "link set eth0 up", route)
            back = asyncio.get_running_loop().time()
            await run.said_since(start, "the tunnel to hairpin-agent-[01] is up")
            await mesh.answered_by(ME, "alice")
            print(f"back {asyncio.get_running_loop().time() - back:.1f} s after the network")
            lines = await lines_since(run, start)
            assert len(lines) <= MOST_LINES, lines
            assert not [line for line in lines if "takes its place" in line], lines
            assert await mesh.cluster.client.get("Session", session, SHOP)
        finally:
            network("link set eth0 down", "addr flush dev eth0")
            network(f"addr add {LAPTOP}/16 dev eth0", "link set eth0 up", route)
        await mesh.answered_by(ME, "alice")


async def test_agents_that_are_rolled_out_one_by_one_cost_no_request(mesh):
    annotated = {"metadata": {"annotations": {"example.com/restarted": secrets.token_hex(4)}}}
    async with mesh.laptop("alice", "alice") as run:
        session, start = await run.session(), len(run.errors)
        async with mesh.traffic("alice") as steered, mesh.traffic() as others:
            await mesh.cluster.client.patch(
                "StatefulSet", "hairpin-agent", {"spec": {"template": annotated}}, namespace=SHOP
            )
            for replica in ("hairpin-agent-1", "hairpin-agent-0"):
                await run.said_since(start, f"the tunnel to {replica} is lost")
                await run.said_since(start, f"the tunnel to {replica} is up")
            await mesh.cluster.rolled_out("StatefulSet", "hairpin-agent", SHOP)
            await mesh.answered_by(ME, "alice")
        assert set(steered) <= {ME, CLUSTER}, steered
        assert set(others) == {CLUSTER}, others
        assert await mesh.cluster.client.get("Session", session, SHOP)
        lines = await lines_since(run, start)
        assert len(lines) <= MOST_LINES, lines
