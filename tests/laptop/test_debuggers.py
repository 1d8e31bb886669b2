"""Real debuggers, started through the shims as IDEs start them: a steered request stops at a breakpoint and is then answered."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from hairpin.ports import free_ports
from local_proxy.ide.languages import Language
from tests.laptop.debugged import WHO, breakpoint_line, repository, started, steered_request
from tests.support import builds
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


async def test_delve_as_vs_codes_go_extension_starts_it(mesh, shop):
    folder = shop(Language.GO) / "go"
    source = folder / "main.go"
    port = next(free_ports())
    read, write = os.pipe()
    log = ["/bin/sh", "-c", f'exec 3>&{write}; exec "$0" "$@"'] if write < 10 else []
    command = [
        folder.parent / ".hairpin/bin/dlv",
        "dap",
        f"--listen=127.0.0.1:{port}",
        f"--log-dest={3 if log else write}",
    ]
    async with started(*log, *command, cwd=folder, pass_fds=(write,)) as delve:
        os.close(write)
        heard = await asyncio.to_thread(os.read, read, 4096)
        assert b"DAP server listening at" in heard, (heard, delve.text)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        launch = {
            "name": "checkout (hairpin)",
            "request": "launch",
            "mode": "debug",
            "program": str(folder),
            "args": [WHO],
        }
        async with dap(reader, writer) as client:
            await tell_story(mesh, client, source, launch)
    os.close(read)
    await mesh.answered_by("checkout", "alice")


@pytest.mark.parametrize("idea_listens", [True, False])
async def test_java_over_jdwp_as_intellij_starts_it(mesh, shop, idea_listens, tmp_path):
    folder = shop(Language.JAVA)
    builds.run([builds.require("javac", "openjdk-17-jdk-headless"), "-g", "Service.java"], cwd=folder)
    port = next(free_ports())
    side = f"server=n,suspend=y,address=127.0.0.1:{port}" if idea_listens else f"server=y,suspend=n,address={port}"
    java = [
        folder / ".hairpin/jdk/bin/java",
        f"-agentlib:jdwp=transport=dt_socket,{side}",
        "-cp",
        folder,
        "Service",
        WHO,
    ]
    line = breakpoint_line(folder / "Service.java")
    jdb = ["jdb", "-J-Duser.home=" + str(tmp_path), "-sourcepath", folder]

    async def story(debugger):
        await debugger.tell(f"stop at Service:{line}")
        await debugger.said(r"(Deferring|Set) breakpoint")
        if idea_listens:
            await debugger.tell("run")

        async def at_breakpoint():
            await debugger.said(r"Breakpoint hit:[\s\S]*\[1\] ")
            await debugger.tell("print total")
            await debugger.said(r"total = 42")

        async def go_on():
            await debugger.tell("clear Service:" + str(line))
            await debugger.tell("cont")

        await steered_request(mesh, at_breakpoint, go_on)

    if idea_listens:
        async with started(*jdb, "-listen", str(port), cwd=folder) as debugger:
            await debugger.said(r"Listening at address")
            async with started(*java, cwd=folder):
                await story(debugger)
    else:
        async with started(*java, cwd=folder) as service:
            await service.said(r"Listening for transport dt_socket")
            async with started(*jdb, "-attach", f"127.0.0.1:{port}", cwd=folder) as debugger:
                await story(debugger)
    await mesh.answered_by("checkout", "alice")


async def test_nodes_inspector(mesh, shop):
    folder = shop(Language.NODE)
    source = folder / "service.js"
    async with started(folder / ".hairpin/bin/node", "--inspect-brk=0", source, WHO, cwd=folder) as node:
        url = (await node.said(r"Debugger listening on (ws://\S+)"))[1]
        async with aiohttp.ClientSession() as client, client.ws_connect(url) as inspector:
            numbers = itertools.count(1)
            passed = []

            async def call(method, **parameters):
                number = next(numbers)
                await inspector.send_json({"id": number, "method": method, "params": parameters})
                while (message := await inspector.receive_json(timeout=40)).get("id") != number:
                    passed.append(message)
                assert "error" not in message, message
                return message["result"]

            async def paused():
                for place, message in enumerate(passed):
                    if message.get("method") == "Debugger.paused":
                        return passed.pop(place)["params"]
                while (message := await inspector.receive_json(timeout=40)).get("method") != "Debugger.paused":
                    pass
                return message["params"]

            async def at_breakpoint():
                stopped = await paused()
                assert stopped["hitBreakpoints"]
                frame = stopped["callFrames"][0]["callFrameId"]
                value = await call("Debugger.evaluateOnCallFrame", callFrameId=frame, expression="total")
                assert value["result"]["value"] == 42

            await call("Runtime.enable")
            await call("Debugger.enable")
            await call("Runtime.runIfWaitingForDebugger")
            await paused()
            line = breakpoint_line(source) - 1
            await call("Debugger.setBreakpointByUrl", url=source.as_uri(), lineNumber=line)
            await call("Debugger.resume")
            await steered_request(mesh, at_breakpoint, lambda: call("Debugger.resume"))
    await mesh.answered_by("checkout", "alice")


async def test_pydevd_as_pycharm_starts_it(mesh, shop):
    """PyCharm listens, and its protocol is lines of numbers and XML: 111 sets a breakpoint, 106 goes on."""
    folder = shop(Language.PYTHON)
    source = folder / "service.py"
    pydevd = debugpy() / "_vendored/pydevd/pydevd.py"
    connected = asyncio.get_running_loop().create_future()

    async def connect(reader, writer):
        if not connected.done():
            connected.set_result((reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as ide:
        port = ide.sockets[0].getsockname()[1]
        command = [pydevd, "--multiprocess", "--client", "127.0.0.1", "--port", port, "--file", source, WHO]
        async with started(folder / ".hairpin/bin/python", *command, cwd=folder):
            async with asyncio.timeout(40):
                reader, writer = await connected

            async def until(number: str) -> list[str]:
                async with asyncio.timeout(40):
                    while (words := (await reader.readline()).decode().strip().split("\t"))[0] != number:
                        assert words != [""], "pydevd hung up"
                return words

            numbers = itertools.count(1, 2)
            where = f"1\tpython-line\t{source}\t{breakpoint_line(source)}\tdo_GET\tNone\tNone"
            for command in ("501\t{}\t1.1\tUNIX\tID", f"111\t{{}}\t{where}", "101\t{}\t"):
                writer.write(command.format(next(numbers)).encode() + b"\n")
            stopped = []

            async def at_breakpoint():
                from urllib.parse import unquote

                words = await until("105")
                text = unquote(words[2])
                assert "do_GET" in text, text
                stopped.append(text.partition('thread id="')[2].partition('"')[0])

            async def go_on():
                writer.write(f"106\t{next(numbers)}\t{stopped[0]}\n".encode())
                await writer.drain()

            await steered_request(mesh, at_breakpoint, go_on)
            writer.close()
    await mesh.answered_by("checkout", "alice")
