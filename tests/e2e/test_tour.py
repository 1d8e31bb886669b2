"""examples/shop/README.md, followed command by command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.mesh import ROOT, eventually
from tests.support.reader import Reader, commands, reading, said

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]

PAGE = ROOT / "examples" / "shop" / "README.md"
ENTRY = "8080"
LISTEN = ("9001", "9002", "9003")


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    async with reading(ENTRY, *LISTEN) as one:
        yield one


def along(answer: str) -> list[dict[str, Any]]:
    """What each service says, from the frontend on."""
    found = [json.loads(answer)]
    while found[-1].get("downstream"):
        found.append(found[-1]["downstream"])
    assert [one["service"] for one in found] == ["frontend", "checkout", "inventory"]
    return found


def where(answer: str) -> list[str]:
    return [one["where"] for one in along(answer)]


async def test_the_tour_in_the_mesh(reader: Reader) -> None:
    steps, page = commands(PAGE), PAGE.read_text()
    entry = steps["ask"].splitlines()[0] + "\n"
    alice, anyone = entry + steps["ask as alice"], entry + steps["ask as anyone"]
    assert steps["debug"] == steps["take over"]
    async with reader.running(steps["mesh"]) as mesh:
        await said(mesh, f"http://127.0.0.1:{reader.ports[ENTRY]} is frontend")
        answer = await reader.types(steps["ask"])
        assert where(answer) == ["cluster"] * 3
        assert f'`"message": "{json.loads(answer)["message"]}"`' in page
        await reader.types(steps["copy"])
        async with reader.running(f"exec {steps['take over']}") as run:
            await said(run, "takes the requests")
            answer = await reader.types(alice)
            assert where(answer) == ["cluster", "laptop of alice", "cluster"]
            assert along(answer)[2]["caller"].endswith("/sa/hairpin-agent")
            assert where(await reader.types(anyone)) == ["cluster"] * 3
        assert where(await reader.types(alice)) == ["cluster"] * 3

        copy = reader.home / "my_checkout.py"
        assert "`discount = 0.20`" in page
        assert copy.read_text().count("discount = 0.10") == 1
        copy.write_text(copy.read_text().replace("discount = 0.10", "discount = 0.20"))
        async with reader.running(f"exec {steps['take over']}") as run:
            await said(run, "takes the requests")
            totals = [along(await reader.types(one))[1]["total"] for one in (alice, anyone)]
        assert totals == [53.6, 60.3]
        assert "53.60 for alice, 60.30 for everyone else" in page


async def test_each_file_runs_by_itself(reader: Reader) -> None:
    steps = commands(PAGE)
    async with contextlib.AsyncExitStack() as terminals:
        for service in ("inventory", "checkout", "frontend"):
            await terminals.enter_async_context(reader.running(steps[service]))

        async def answered() -> bool:
            return where(await reader.types(steps["ask frontend"])) == ["cluster"] * 3

        await eventually(answered, "an answer of all three")
