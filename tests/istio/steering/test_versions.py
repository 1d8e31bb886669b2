"""Versions that don't go together in a real mesh: a laptop is refused, an agent's rollout stops, and each names both versions."""

from __future__ import annotations

import re

import pytest

from hairpin.model.mesh import AGENT
from hairpin.model.version import OURS, PROTOCOL
from tests.support.cluster.client import ApiError
from tests.support.cluster.images import PYTHON
from tests.support.istio_mesh import SHOP, followed
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CLUSTER, ME = "checkout", "laptop of alice"
FIRST, LAST = f"{AGENT}-0", f"{AGENT}-1"
"""A rolling update begins with the last."""


def of_version(text, protocol, module):
    """A program of ours, started as one of another version: what it states is decided before it is imported."""
    script = f"""
import runpy
from hairpin.model import version
version.OURS = version.Version({text!r}, {protocol})
version.user_agent.__defaults__ = (version.OURS,)
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
    return PYTHON, "-c", script


async def test_a_laptop_of_another_protocol_is_refused_with_both_versions_and_leaves_nothing(mesh):
    async def sessions():
        return {session["metadata"]["name"] for session in await mesh.cluster.client.list("Session", SHOP)}

    newer = of_version("9.9.9", PROTOCOL + 1, "hairpin")
    before = await sessions()  # of a laptop that an earlier test has killed
    run = await mesh.command(
        "alice", "run", "--env", "alice", "-t", "checkout:http", "-n", SHOP, "--", "true", program=newer
    )
    assert run.process.returncode == 6
    both = f"the laptop's hairpin is 9.9.9 (protocol {PROTOCOL + 1}), the control plane's is {OURS}: they don't work together"
    assert both in run.error
    assert "use hairpin" in run.error
    assert await sessions() <= before


async def test_a_laptop_of_another_version_and_the_same_protocol_is_told_and_served(mesh):
    newer = of_version("9.9.9", PROTOCOL, "hairpin")
    arguments = ("run", "--mode", "egress", "-n", SHOP, "--", "sleep", "60")
    async with mesh.hairpin("alice", *arguments, program=newer) as run:
        await run.said(rf"this is hairpin 9\.9\.9, the control plane is {re.escape(OURS.text)}.*: they go together")


async def test_a_rollout_to_agents_of_another_protocol_stops_at_the_first_and_sessions_go_on(mesh):
    client = mesh.cluster.client
    stateful_set = await client.get("StatefulSet", AGENT, SHOP)
    [container] = stateful_set["spec"]["template"]["spec"]["containers"]
    module, *arguments = container["args"]
    skewed = {**container, "command": [*of_version("9.9.9", PROTOCOL + 1, module)], "args": arguments}

    async def containers(changed):
        template = {"spec": {"containers": [changed]}}
        await client.patch("StatefulSet", AGENT, {"spec": {"template": template}}, namespace=SHOP)

    def is_seen(found):
        return found["status"]["observedGeneration"] >= found["metadata"]["generation"]

    async def pod(name):
        return await client.get("Pod", name, SHOP)

    async def log():
        query = {"container": container["name"], "tailLines": "20"}
        try:
            answer = await client.request("GET", f"/api/v1/namespaces/{SHOP}/pods/{LAST}/log", query=query)
        except ApiError:  # between two pods of the name
            return ""
        return answer["message"]

    async def refused():
        both = (
            f"the agent is hairpin 9.9.9 (protocol {PROTOCOL + 1}), the control plane {OURS}: they don't work together"
        )
        return both in await log()

    kept = (await pod(FIRST))["metadata"]["uid"]
    async with mesh.laptop("alice", "alice") as run:
        session, start = await run.session(), len(run.errors)
        try:
            async with mesh.traffic() as others:
                await containers(skewed)
                await run.said_since(start, f"the tunnel to {LAST} is lost")
                await eventually(refused, "the new agent's log names both versions", seconds=60)
                await mesh.answered_by(ME, "alice")  # by the other replica
                # A part of them would be the application's if sidecars knew of the one that is not ready.
                assert [(await mesh.ask("alice", method="POST"))["who"] for _ in range(40)] == [ME] * 40
            assert set(others) == {CLUSTER}, others
            assert not any(f"the tunnel to {LAST} is up" in line for line in run.errors[start:])
        finally:
            await containers(container)
            # Known before the pod is gone: the next one is not to be made as before once more.
            await client.wait_for("StatefulSet", AGENT, is_seen, namespace=SHOP)
            # One that is not ready stops the rollout back, too (kubernetes/kubernetes#67250).
            await client.delete("Pod", LAST, SHOP)
        await run.said_since(start, f"the tunnel to {LAST} is up")
        await mesh.cluster.rolled_out("StatefulSet", AGENT, SHOP)
        await followed(mesh.cluster, SHOP, AGENT)
        await mesh.answered_by(ME, "alice")
        assert (await pod(FIRST))["metadata"]["uid"] == kept
        assert await client.get("Session", session, SHOP)
        assert not any(f"tunnel to {FIRST}" in line for line in run.errors[start:])
