"""Real debuggers, started as IDEs start what `hairpin ide` wrote: a steered request stops at a breakpoint and is then answered.

Of each start the words that are not the configuration's are those that the IDE adds, as its sources have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import shlex
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from hairpin.ports import free_ports
from local_proxy.ide.languages import Language
from tests.laptop.debugged import (
    SOURCES,
    breakpoint_line,
    launch_json_entry,
    repository,
    run_xml_options,
    started,
    steered_request,
)
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
        launch = {**launch_json_entry(folder), "console": console}
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


@contextlib.asynccontextmanager
async def delve_listens(dlv, folder, environment):
    """As for `"console": "internalConsole"`: Delve is connected to when it says that it listens, on a descriptor of its own."""
    port = next(free_ports())
    read, write = os.pipe()
    log = ["/bin/sh", "-c", f'exec 3>&{write}; exec "$0" "$@"'] if write < 10 else []
    command = [dlv, "dap", f"--listen=127.0.0.1:{port}", f"--log-dest={3 if log else write}"]
    async with started(*log, *command, cwd=folder, pass_fds=(write,), **environment) as delve:
        os.close(write)
        heard = await asyncio.to_thread(os.read, read, 4096)
        assert b"DAP server listening at" in heard, (heard, delve.text)
        yield await asyncio.open_connection("127.0.0.1", port)
    os.close(read)


@contextlib.asynccontextmanager
async def delve_connects(dlv, folder, environment):
    """As for a terminal, which the entry has: Delve connects to the extension, which listens."""
    connected = asyncio.get_running_loop().create_future()

    async def connect(reader, writer):
        connected.set_result((reader, writer))

    async with await asyncio.start_server(connect, None, 0, family=socket.AF_INET) as extension:
        port = extension.sockets[0].getsockname()[1]
        async with started(dlv, "dap", f"--client-addr=:{port}", cwd=folder, **environment):
            async with asyncio.timeout(40):
                connection = await connected
            yield connection


@pytest.fixture(scope="module")
def compiled():
    """Go's own packages, as Delve has them compiled: however long that takes the first time, no launch waits for it."""
    try:
        go = builds.require("go", "golang, or Go itself")
    except MissingError as error:
        pytest.skip(str(error))
    command = [go, "build", "-gcflags=all=-N -l", "-tags=debugged", "-o", os.devnull, "."]
    builds.run(command, cwd=SOURCES / "go", CGO_CFLAGS=os.environ.get("CGO_CFLAGS") or "-O0 -g")


@pytest.mark.parametrize("console", ["internalConsole", "integratedTerminal"])
async def test_delve_as_vs_codes_go_extension_starts_it(mesh, shop, compiled, console):
    folder = shop(Language.GO)
    entry = {**launch_json_entry(folder), "console": console}
    tools = json.loads((folder / ".vscode/settings.json").read_text().replace("${workspaceFolder}", str(folder)))
    delve = delve_connects if console == launch_json_entry(folder)["console"] else delve_listens
    package = Path(entry["program"])
    async with delve(tools["go.alternateTools"]["dlv"], package, entry["env"]) as (reader, writer):
        async with dap(reader, writer) as client:
            await tell_story(mesh, client, package / "main.go", entry)
    await mesh.answered_by("checkout", "alice")


def java_by_vs_code(folder, jdwp):
    entry = launch_json_entry(folder)
    # The class path is the project's own, as the Java extension knows it.
    words = [entry["javaExec"], jdwp, *entry["vmArgs"], "-cp", folder, entry["mainClass"], *entry["args"]]
    return words, Path(entry["cwd"]), entry["env"]


def java_by_intellij(folder, jdwp):
    options = run_xml_options(folder)
    assert options["ALTERNATIVE_JRE_PATH_ENABLED"] == "true"
    words = [
        Path(options["ALTERNATIVE_JRE_PATH"]) / "bin" / "java", jdwp, *shlex.split(options["VM_PARAMETERS"]),
        "-cp", folder, options["MAIN_CLASS_NAME"], *shlex.split(options["PROGRAM_PARAMETERS"]),
    ]  # fmt: skip
    return words, Path(options["WORKING_DIRECTORY"]), {"HAIRPIN_SERVICE": "checkout"}


@pytest.mark.parametrize(
    ("ide", "ide_listens"), [(java_by_vs_code, True), (java_by_intellij, True), (java_by_intellij, False)]
)
async def test_java_over_jdwp(mesh, shop, ide, ide_listens, tmp_path):
    folder = shop(Language.JAVA)
    builds.run([builds.require("javac", "openjdk-17-jdk-headless"), "-g", "Service.java"], cwd=folder)
    port = next(free_ports())
    side = f"server=n,suspend=y,address=127.0.0.1:{port}" if ide_listens else f"server=y,suspend=n,address={port}"
    java, here, environment = ide(folder, f"-agentlib:jdwp=transport=dt_socket,{side}")
    line = breakpoint_line(folder / "Service.java")
    jdb = ["jdb", "-J-Duser.home=" + str(tmp_path), "-sourcepath", folder]

    async def story(debugger):
        await debugger.tell(f"stop at Service:{line}")
        await debugger.said(r"(Deferring|Set) breakpoint")
        if ide_listens:
            await debugger.tell("run")

        async def at_breakpoint():
            await debugger.said(r"Breakpoint hit:[\s\S]*\[1\] ")
            await debugger.tell("print total")
            await debugger.said(r"total = 42")

        async def go_on():
            await debugger.tell("clear Service:" + str(line))
            await debugger.tell("cont")

        await steered_request(mesh, at_breakpoint, go_on)

    if ide_listens:
        async with started(*jdb, "-listen", str(port), cwd=folder) as debugger:
            await debugger.said(r"Listening at address")
            async with started(*java, cwd=here, **environment):
                await story(debugger)
    else:
        async with started(*java, cwd=here, **environment) as service:
            await service.said(r"Listening for transport dt_socket")
            async with started(*jdb, "-attach", f"127.0.0.1:{port}", cwd=folder) as debugger:
                await story(debugger)
    await mesh.answered_by("checkout", "alice")


BOOTLOADER = """\
const inspector = require("node:inspector");
if (process.env.VSCODE_INSPECTOR_OPTIONS && !inspector.url()) {
  inspector.open(0);
  inspector.waitForDebugger();
}
"""
"""What js-debug has each Node load: it opens the inspector on a port of its choice and waits for the debugger."""


@pytest.mark.parametrize("how", ["bootloader", "--inspect-brk=0"])
async def test_nodes_inspector(mesh, shop, how, tmp_path):
    folder = shop(Language.NODE)
    entry = launch_json_entry(folder)
    source = Path(entry["program"])
    assert source == folder / "service.js"
    environment, flags = entry["env"], [how]
    if how == "bootloader":
        (tmp_path / "bootloader.js").write_text(BOOTLOADER)
        options = {"inspectorIpc": str(tmp_path / "ipc"), "autoAttachMode": "always"}
        flags, environment = (
            [],
            {
                **environment,
                "NODE_OPTIONS": f" --require {tmp_path / 'bootloader.js'} ",
                "VSCODE_INSPECTOR_OPTIONS": json.dumps(options),
            },
        )
    command = [entry["runtimeExecutable"], *flags, *entry["runtimeArgs"], source, *entry["args"]]
    async with started(*command, cwd=Path(entry["cwd"]), **environment) as node:
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
            line = breakpoint_line(source) - 1
            await call("Debugger.setBreakpointByUrl", url=source.as_uri(), lineNumber=line)
            await call("Runtime.runIfWaitingForDebugger")
            if flags:
                await paused()  # at the first line
                await call("Debugger.resume")
            await steered_request(mesh, at_breakpoint, lambda: call("Debugger.resume"))
    await mesh.answered_by("checkout", "alice")


async def test_pydevd_as_pycharm_starts_it(mesh, shop):
    """PyCharm listens, and its protocol is lines of numbers and XML: 111 sets a breakpoint, 106 goes on."""
    folder = shop(Language.PYTHON)
    options = run_xml_options(folder)
    source = Path(options["SCRIPT_NAME"])
    assert (source, options["MODULE_MODE"]) == (folder / "service.py", "false")
    pydevd = debugpy() / "_vendored/pydevd/pydevd.py"
    connected = asyncio.get_running_loop().create_future()

    async def connect(reader, writer):
        if not connected.done():
            connected.set_result((reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as ide:
        port = ide.sockets[0].getsockname()[1]
        words = [*shlex.split(options["INTERPRETER_OPTIONS"]), pydevd, "--multiprocess", "--client", "127.0.0.1"]
        words += ["--port", port, "--file", source, *shlex.split(options["PARAMETERS"])]
        here, service = Path(options["WORKING_DIRECTORY"]), "checkout"
        async with started(options["SDK_HOME"], *words, cwd=here, HAIRPIN_SERVICE=service):
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
