"""Everything a mesh carries, through the entry: answered by the cluster, by the laptop, and by the cluster again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from hairpin.ports import free_ports
from tests.support.protocols import GRPC, LARGE, PROTOCOLS

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]

ALL = sorted(PROTOCOLS)
CLUSTER, LAPTOP = "checkout", "laptop of alice"


async def check(mesh, name, environment, who):
    authority = "checkout:9090" if name in GRPC else "checkout"
    await PROTOCOLS[name](mesh.entry, authority, {"x-env": environment} if environment else {}, who)


@pytest.fixture(scope="module")
async def sessions(mesh):
    """A session of alice's for each of checkout's ports."""
    ports = free_ports()
    async with AsyncExitStack() as stack:

        async def start(target, flag):
            port = str(next(ports))
            run = await stack.enter_async_context(
                mesh.laptop("alice", "alice", "--port", port, target=target, echo=(flag, port))
            )
            assert f"127.0.0.1:{port} takes the requests" in "\n".join(run.errors)
            return run

        yield [await start("checkout:http", "--port"), await start("checkout:grpc", "--grpc-port")]


@pytest.mark.parametrize("name", ALL)
async def test_unmatched_before_any_session(mesh, name):
    await check(mesh, name, None, CLUSTER)


@pytest.mark.parametrize("name", ALL)
async def test_steered(mesh, sessions, name):
    await check(mesh, name, "alice", LAPTOP)


@pytest.mark.parametrize("name", sorted(set(ALL) - LARGE))
@pytest.mark.parametrize("environment", [None, "bob"])
async def test_unmatched_beside_a_session(mesh, sessions, name, environment):
    await check(mesh, name, environment, CLUSTER)


@pytest.mark.parametrize("name", sorted(LARGE))
async def test_a_large_body_each_way_at_once(mesh, sessions, name):
    """Steered and unmatched share sidecars; neither holds the other up for good, and no byte of one is in the other."""
    await asyncio.gather(check(mesh, name, "alice", LAPTOP), check(mesh, name, None, CLUSTER))


async def test_all_fall_back_right_after_the_sessions_ended(mesh, sessions):
    """The last of this module: it ends the sessions. The very next requests are the cluster's, whatever they speak."""
    assert [await run.end() for run in sessions] == [0, 0]
    await asyncio.gather(*(check(mesh, name, "alice", CLUSTER) for name in ALL if name not in LARGE))
    for name in sorted(LARGE):
        await check(mesh, name, "alice", CLUSTER)
