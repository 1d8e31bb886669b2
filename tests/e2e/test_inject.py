"""`hairpin run --inject-env`: a program that propagates nothing stays in its environment, by each way into the mesh."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.mesh import echo_mesh, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]
TOLD = "the command's HTTP requests that lack it get baggage env=alice"
HTTP_CALLS = """
import urllib.request
for headers in ({}, {"baggage": "user=7"}, {"baggage": "env=bob"}):
    request = urllib.request.Request("http://inventory/stock", headers=headers)
    print(urllib.request.urlopen(request, timeout=20).read().decode().strip())
"""
GRPC_CALLS = """
import grpc
with grpc.insecure_channel("inventory:9090") as channel:
    call = channel.unary_unary("/hairpin.test.Echo/Unary")
    for metadata in ((), (("baggage", "user=7"),)):
        print(call(b'{"message": "hello"}', metadata=metadata, timeout=20).decode())
"""


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    """One whose environments are marked by a member of baggage, and alice's has an inventory of its own."""
    folder = tmp_path_factory.mktemp("mesh")
    async with running_mesh(echo_mesh(routingKey={"baggage": "env"}), folder) as running:
        async with running.laptop("bob", "alice", target="inventory:http", who="alice's inventory"):
            yield running


async def answers(mesh, script, *flags):
    """What a program's calls are answered, that runs in environment alice."""
    arguments = ("run", "--mode", "egress", "--env", "alice", *flags, "--", sys.executable, "-c", script)
    run = await mesh.command("alice", *arguments)
    assert run.process.returncode == 0, run.errors
    return [json.loads(line) for line in run.output], run.errors


@pytest.mark.parametrize("intercept", ["on", "off"])
async def test_a_programs_requests_stay_in_its_environment(mesh, intercept):
    found, errors = await answers(mesh, HTTP_CALLS, "--intercept", intercept, "--inject-env")
    assert [(answer["who"], answer["headers"]["baggage"]) for answer in found] == [
        ("alice's inventory", "env=alice"),
        ("alice's inventory", "user=7,env=alice"),
        ("inventory", "env=bob"),  # which the program said itself
    ]
    assert any(line.endswith(TOLD) for line in errors), errors
    assert any("<- GET inventory/ 200" in line or "<- GET inventory 200" in line for line in errors), errors


async def test_without_the_flag_they_do_not(mesh):
    found, errors = await answers(mesh, HTTP_CALLS, "--intercept", "on")
    assert [(answer["who"], answer["headers"].get("baggage")) for answer in found] == [
        ("inventory", None),
        ("inventory", "user=7"),
        ("inventory", "env=bob"),
    ]
    assert not any(line.endswith(TOLD) for line in errors), errors


async def test_grpc_gets_it_too(mesh):
    found, _ = await answers(mesh, GRPC_CALLS, "--intercept", "on", "--inject-env")
    assert [answer["headers"]["baggage"] for answer in found] == ["env=alice", "user=7,env=alice"]


async def test_there_is_no_header_without_an_environment(mesh):
    run = await mesh.command("alice", "run", "--mode", "egress", "--inject-env", "--", "true")
    assert run.process.returncode == 2
    assert "--inject-env has no environment whose header to add; write --env NAME" in run.error
