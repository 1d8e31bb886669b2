"""Files at paths that this machine does not have, for one program alone, as the real kernel lets an ordinary user have them."""

import asyncio
import contextlib
import json
import os
import signal
import textwrap
from pathlib import Path

import pytest

from tests.support import ordinary
from tests.support.cluster.images import PYTHON
from tests.support.intercepted import Ended, gateway, kill_once_begun
from tests.support.mesh import eventually

pytestmark = [
    pytest.mark.timeout(120, func_only=True),
    pytest.mark.skipif(bool(ordinary.why_not()), reason=ordinary.why_not()),
]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
FILES = {
    TOKEN: "a token",
    "/etc/hairpin-test/config.yaml": "a: 1",
    "/etc/hairpin-test/tls/key": "key",
    "/hairpin-test/deep/x": "x",
    "/mnt/there/new": "new",
    "/mnt/one.conf": "one",
    "/mnt/missing.conf": "missing",
}
MOUNTS = [
    str(Path(TOKEN).parent),
    "/etc/hairpin-test",
    "/etc/hairpin-test/tls",
    "/hairpin-test/deep",
    "/mnt/there",
    "/mnt/one.conf",
    "/mnt/missing.conf",
]
PREPARE = """
mkdir /mnt/there; echo old > /mnt/there/old; echo old > /mnt/one.conf
echo kept > /mnt/kept; echo group > /mnt/group; chown root:27 /mnt/group; chmod 640 /mnt/group
"""
PREAMBLE = "import errno, json, os, pathlib, socket, subprocess, sys, time\nread = lambda path: pathlib.Path(path).read_text()\n"


def command(program, *, prepare=PREPARE, **settings):
    settings = {"files": FILES, "mounts": MOUNTS, "gateway": 1, **settings}
    main = [PYTHON, "-m", "tests.support.intercepted_main", json.dumps(settings)]
    return ordinary.ordinary(*main, PYTHON, "-c", PREAMBLE + textwrap.dedent(program), prepare=prepare)


@contextlib.asynccontextmanager
async def running(program, **settings):
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command(program, **settings), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def run(program, **settings):
    async with running(program, **settings) as process:
        output, errors = await process.communicate()
    ended = Ended(process.returncode, output.decode(), errors.decode().splitlines())
    assert ended.code == 0, (ended.output, ended.lines)
    return ended


def entries(folder):
    return {entry.name for entry in Path(folder).iterdir()}


SEES = """
def errno_of(work):
    try: work()
    except OSError as error: return errno.errorcode[error.errno]
status = dict(line.split(":\\t", 1) for line in read("/proc/self/status").splitlines() if ":\\t" in line)
found = {
    "files": {path: read(path) for path in json.loads(sys.argv[1] if sys.argv[1:] else os.environ["PATHS"])},
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
    "capabilities": int(status["CapEff"], 16), "cwd": os.getcwd(), "there": os.listdir("/mnt/there"),
    "kept": read("/mnt/kept"), "kept link": os.readlink("/mnt/kept"), "hosts": read("/etc/hosts"), "group": read("/mnt/group"),
    "entries": {folder: sorted(os.listdir(folder)) for folder in ("/etc", "/run", "/", "/mnt")},
    "writes": [errno_of(lambda: open(folder + "/hairpin-x", "w")) for folder in ("/etc", "/run", "/", "/mnt")],
    "own": pathlib.Path("own").write_text("x") and os.stat("own").st_uid,
    "nested": subprocess.run(["unshare", "--user", "--map-root-user", "true"]).returncode,
    "proc": os.readlink("/proc/self/exe") == os.path.realpath(sys.executable),
}
"""
CALLS = """
with socket.create_connection(("10.1.2.3", 80)) as s:
    s.sendall(b"hello\\n")
    found["echo"] = s.recv(10).decode()
"""


@pytest.mark.parametrize("intercept", ["on", "off"])
async def test_files_are_at_their_own_paths_and_nothing_else_has_changed(intercept):
    before = {folder: entries(folder) for folder in ("/etc", "/run", "/")}
    mounts = Path("/proc/self/mountinfo").read_text()
    async with gateway() as envoy:
        program = f"os.environ['PATHS'] = {json.dumps(json.dumps(list(FILES)))}\n" + SEES
        program += (CALLS if intercept == "on" else "") + "print(json.dumps(found))\n"
        ended = await run(program, intercept=intercept, gateway=envoy.port)
        found = json.loads(ended.output)
        assert [str(header.destination) for header in envoy.headers] == ["10.1.2.3:80"] * (intercept == "on")
    assert found["files"] == FILES
    assert found["ids"] == [ordinary.UID] * 4
    assert found["own"] == ordinary.UID
    assert found["capabilities"] == 0
    assert found["cwd"] == ordinary.HOME
    assert found["there"] == ["new"]  # what is mounted hides what was there
    assert (found["kept"], found["kept link"], found["group"]) == ("kept\n", ".hairpin/kept", "group\n")
    assert found["hosts"] == Path("/etc/hosts").read_text()
    assert found["writes"] == ["EACCES"] * 4
    assert found["nested"] == 0
    assert found["proc"]
    more = {"/etc": "hairpin-test", "/run": "secrets", "/": "hairpin-test"}
    for folder, name in more.items():
        assert set(found["entries"][folder]) == {*before[folder], name, ".hairpin"}
    # Nothing was made, for nobody else.
    assert {folder: entries(folder) for folder in more} == before
    assert Path("/proc/self/mountinfo").read_text() == mounts


async def test_a_file_that_is_replaced_is_followed_where_its_folder_is_covered():
    program = """
    until = time.monotonic() + 20
    while read("/mnt/kept") != "later\\n" and time.monotonic() < until: time.sleep(0.05)
    print(read("/mnt/kept"), read("/mnt/missing.conf"), sep="")
    """
    prepare = f"{PREPARE}(sleep 1; echo later > /mnt/.kept; mv /mnt/.kept /mnt/kept) >/dev/null 2>&1 &"
    assert (await run(program, prepare=prepare)).output == "later\nmissing\n"


async def test_what_can_not_be_mounted_is_said_and_the_rest_is_mounted():
    program = "print(os.path.exists('/etc/x'), read('/hairpin-test/deep/x'))"
    ended = await run(
        program, mounts=["/etc", "/hairpin-test/deep"], files={"/etc/x": "x", "/hairpin-test/deep/x": "x"}
    )
    assert ended.output == "False x\n"
    assert "refused: /etc: it would hide what programs need on this machine" in ended.lines


async def test_without_user_namespaces_nothing_is_mounted_and_why_is_said():
    """A namespace that allows no further ones, around all."""
    whole = command("print(os.path.exists('/etc/hairpin-test'))", intercept="off")
    at = whole.index("setpriv") if "setpriv" in whole else whole.index(PYTHON)
    limit = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"',
        "sh",
    ]
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    process = await asyncio.create_subprocess_exec(
        *whole[:at], *limit, *drop, *whole[at:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert output == b"False\n", errors.decode()
    assert "not mounted: namespaces are switched off (user.max_user_namespaces=0)" in errors.decode()


@pytest.mark.parametrize("intercept", ["on", "off"])
async def test_a_kill_leaves_no_mount_and_no_file(intercept):
    mounts = Path("/proc/self/mountinfo").read_text()
    program = "print(os.environ['FOLDER'], os.getpid(), flush=True); time.sleep(60)"
    async with running(program, intercept=intercept) as process:
        folder, pid = (await kill_once_begun(process)).split()
        assert await process.wait() != 0
        left = [Path("/proc", os.fsdecode(pid)), Path(os.fsdecode(folder))]

        async def gone():
            return not any(path.exists() for path in left)

        await eventually(gone, "the program has ended, and its files are removed")
    assert Path("/proc/self/mountinfo").read_text() == mounts


DEBUGGERS = {
    "strace": ["strace", "-p", "PID"],
    "gdb": ["gdb", "-q", "-batch", "-iex", "set sysroot /", "-p", "PID", "-ex", "info sharedlibrary"],
}


@pytest.mark.parametrize("debugger", DEBUGGERS)
async def test_a_debugger_of_the_same_user_attaches_from_outside(debugger):
    async with running("print(os.getpid(), flush=True); time.sleep(60)") as process:
        pid = (await process.stdout.readline()).decode().strip()
        assert pid
        attach = ordinary.ordinary(*(pid if word == "PID" else word for word in DEBUGGERS[debugger]))
        found = await asyncio.create_subprocess_exec(
            *attach, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
        )
        text = ""
        while "attached" not in text and (line := await found.stdout.readline()):
            text += line.decode()
        if debugger == "strace" and "attached" in text:
            found.send_signal(signal.SIGINT)  # it would go on; the other ends by itself
        text += (await found.communicate())[0].decode()
        assert "Operation not permitted" not in text, text
        assert ("attached" in text) if debugger == "strace" else ("libc.so.6" in text and "Yes" in text), text
