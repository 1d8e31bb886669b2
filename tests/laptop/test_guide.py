"""docs/ide.md's four steps, followed command by command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import debugpy  # noqa: T100 # its adapter is what VS Code runs
import pytest

from tests.support.dap import Dap, dap
from tests.support.mesh import ROOT
from tests.support.reader import Reader, commands, reading, said

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "ide.md"
PORT = "8080"
"""The entry's, as the guide has it."""


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    async with reading(PORT) as one:
        yield one


def checkout_in(answer: str) -> dict[str, Any]:
    """What checkout says in the frontend's answer."""
    found: dict[str, Any] = json.loads(answer)["downstream"]
    assert found["service"] == "checkout"
    return found


async def test_the_guide_is_followed(reader: Reader) -> None:
    steps = commands(PAGE)
    assert list(steps) == ["mesh", "step 1", "step 2", "step 3", "step 4"]
    async with reader.running(steps["mesh"]) as mesh:
        await said(mesh, f"http://127.0.0.1:{reader.ports[PORT]} is frontend")
        await reader.types(steps["step 1"])
        await reader.types(steps["step 2"])
        shop = reader.home / "my-shop"
        (configuration,) = json.loads((shop / ".vscode" / "launch.json").read_text())["configurations"]
        assert f"`{configuration['name']}`" in PAGE.read_text()
        assert [file.name for file in (shop / ".run").iterdir()] == ["hairpin-my-shop-python.run.xml"]
        # What the page says that the IDE starts is what the configuration says, in it.
        filled = {
            key: value.replace("${workspaceFolder}", ".")
            for key, value in configuration.items()
            if isinstance(value, str)
        }
        assert steps["step 3"].split() == [filled["python"].removeprefix("./"), filled["program"].removeprefix("./")]
        assert filled["cwd"] == "."
        assert checkout_in(await reader.types(steps["step 4"]))["where"] == "cluster"
        async with reader.running(f"exec {steps['step 3']}", "my-shop") as started:
            await said(started, "takes the requests")
            answered = checkout_in(await reader.types(steps["step 4"]))
            assert answered["where"] == "laptop of alice"
            assert answered["downstream"]["caller"], "inventory was called through the mesh"
        assert checkout_in(await reader.types(steps["step 4"]))["where"] == "cluster"


async def test_f5_stops_at_the_breakpoint_and_the_caller_gets_the_answer(reader: Reader) -> None:
    """Step 3 as VS Code does it: its debug adapter is given the written launch.json."""
    steps = commands(PAGE)
    async with reader.running(steps["mesh"]) as mesh:
        await said(mesh, f"http://127.0.0.1:{reader.ports[PORT]} is frontend")
        await reader.types(steps["step 1"])
        await reader.types(steps["step 2"])
        shop = reader.home / "my-shop"
        written = (shop / ".vscode" / "launch.json").read_text().replace("${workspaceFolder}", str(shop))
        (configuration,) = json.loads(written)["configurations"]
        adapter = await asyncio.create_subprocess_exec(
            *(sys.executable, Path(debugpy.__file__).parent / "adapter"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=reader.environment,
        )
        assert adapter.stdout is not None
        assert adapter.stdin is not None
        try:
            async with dap(adapter.stdout, adapter.stdin) as ide:
                await debugged(ide, reader, configuration, shop / "checkout.py", steps["step 4"])
            await adapter.wait()
        finally:
            if adapter.returncode is None:
                adapter.kill()
                await adapter.wait()
        assert checkout_in(await reader.types(steps["step 4"]))["where"] == "cluster"


async def debugged(ide: Dap, reader: Reader, configuration: dict[str, Any], source: Path, request: str) -> None:
    lines = source.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "a good line for a breakpoint" in text)
    assert lines[line - 1].strip().startswith("discount = ")
    await ide.request("initialize", adapterID="debugpy", pathFormat="path")
    # VS Code's extension sets the latter for the debug console.
    console = {"console": "internalConsole", "redirectOutput": True}
    launching = await ide.send("launch", **{**configuration, **console})
    await ide.event("initialized")
    await ide.request("setBreakpoints", source={"path": str(source)}, breakpoints=[{"line": line}])
    await ide.request("configurationDone")
    await ide.answer(launching, "launch")
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(ide.event("stopped"))
        while not stopping.done():  # until the session is up, the cluster answers
            answering = tasks.create_task(reader.types(request))
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopped = stopping.result()
        assert stopped["reason"] == "breakpoint"
        assert not answering.done()
        (frame, *_) = (await ide.request("stackTrace", threadId=stopped["threadId"], levels=1))["stackFrames"]
        value = await ide.request("evaluate", expression="subtotal", frameId=frame["id"], context="watch")
        assert value["result"] == "67.0"
        await ide.request("continue", threadId=stopped["threadId"])
    assert checkout_in(answering.result())["where"] == "laptop of alice"
    await ide.request("disconnect", terminateDebuggee=True)
