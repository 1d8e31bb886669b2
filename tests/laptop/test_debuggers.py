"""Real debuggers, started through the shims as IDEs start them: a steered request stops at a breakpoint and is then answered."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

from local_proxy.ide.languages import Language
from tests.laptop.debugged import WHO, breakpoint_line, repository, started, steered_request
from tests.support.builds import MissingError
from tests.support.dap import Dap, dap
from tests.support.mesh import echo_mesh, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120, func_only=True)]
INTERCEPT = ["off", *(["on"] if sys.platform == "linux" else [])]


def debugpy() -> Path:
    """Its folder; it is started as a program, as VS Code's bundled copy is."""
    found = importlib.util.find_spec("debugpy")
    assert found and found.origin, "debugpy is missing: make setup"
    return Path(found.origin).parent


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("mesh")) as running:
        yield running


@pytest.fixture(params=INTERCEPT)
def shop(request, tmp_path, mesh):
    """Makes the repository, for a language."""

    def made(language: Language) -> Path:
        try:
            return repository(tmp_path, mesh, language, request.param)
        except MissingError as error:
            pytest.skip(str(error))

    return made


async def tell_story(mesh, client: Dap, source: Path, launch) -> None:
    """Over DAP: launch, a breakpoint, the request, its variable, continue."""
    await client.request("initialize", adapterID="debugpy", pathFormat="path", supportsRunInTerminalRequest=True)
    launching = await client.send("launch", **launch)
    await client.event("initialized")
    where = {"source": {"path": str(source)}, "breakpoints": [{"line": breakpoint_line(source)}]}
    await client.request("setBreakpoints", **where)
    await client.request("configurationDone")
    await client.answer(launching, "launch")
    stopped = {}

    async def at_breakpoint():
        stopped.update(await client.event("stopped"))
        assert stopped["reason"] == "breakpoint"
        trace = await client.request("stackTrace", threadId=stopped["threadId"], levels=1)
        frame = trace["stackFrames"][0]
        assert frame["line"] == breakpoint_line(source)
        value = await client.request("evaluate", expression="total", frameId=frame["id"], context="watch")
        assert value["result"] == "42"

    async def go_on():
        await client.request("continue", threadId=stopped["threadId"])

    await steered_request(mesh, at_breakpoint, go_on)
    await client.request("disconnect", terminateDebuggee=True)


@pytest.mark.parametrize("console", ["internalConsole", "integratedTerminal"])
async def test_debugpy_as_vs_code_starts_it(mesh, shop, console):
    folder = shop(Language.PYTHON)
    source = folder / "service.py"
    async with asyncio.TaskGroup() as terminals:
        ended = asyncio.Event()

        async def terminal(arguments):
            async with started(
                *arguments["args"], cwd=arguments["cwd"], **{k: str(v) for k, v in arguments.get("env", {}).items()}
            ):
                await ended.wait()

        async def run_in_terminal(arguments):
            terminals.create_task(terminal(arguments))
            return {}

        adapter = await asyncio.create_subprocess_exec(
            sys.executable, debugpy() / "adapter",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        launch = {
            "name": "checkout (hairpin)", "type": "debugpy", "request": "launch", "program": str(source), "args": [WHO],
            "cwd": str(folder), "console": console, "python": str(folder / ".hairpin/bin/python"),
        }  # fmt: skip
        try:
            async with dap(adapter.stdout, adapter.stdin, {"runInTerminal": run_in_terminal}) as client:
                await tell_story(mesh, client, source, launch)
            await adapter.wait()
        finally:
            ended.set()
            if adapter.returncode is None:
                adapter.kill()
                await adapter.wait()
    await mesh.answered_by("checkout", "alice")
