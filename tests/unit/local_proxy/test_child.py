import asyncio
import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest

from local_proxy.child import CommandNotExecutableError, CommandNotFoundError, find_command, run_child
from local_proxy.descriptors import listeners_passed_on
from local_proxy.signals import Signals
from tests.support.ports import free_port
from tests.unit.local_proxy.processes import alive, eventually

SHELL = ["/bin/sh", "-c"]

RUN = """
import asyncio, os, sys
from pathlib import Path
from local_proxy.child import run_child
from local_proxy.signals import Signals

async def main():
    with Signals().installed() as signals:
        folder = os.environ.get("TEST_FOLDER")
        async with run_child(sys.argv[1:], os.environ, signals, folder=Path(folder) if folder else None, warn=print) as child:
            if attached := os.environ.get("TEST_ATTACHED"):
                Path(attached).touch()
            return await child.wait()

sys.exit(asyncio.run(main()))
"""


def run(*command, **options):
    """`run_child` in a process of its own, as `hairpin run` has it."""
    return subprocess.Popen([sys.executable, "-c", RUN, *command], **options)


@pytest.fixture
def attached(tmp_path, monkeypatch):
    """Waits until `run` passes signals on and has its guard: that is a while after the command's start."""
    file = tmp_path / "attached"
    monkeypatch.setenv("TEST_ATTACHED", str(file))

    async def attached():
        await eventually(file.exists)

    return attached


async def exit_code(*command):
    async with run_child(command, os.environ, Signals()) as child:
        return await child.wait()


async def test_the_exit_code_is_the_commands():
    assert await exit_code(*SHELL, "exit 7") == 7


async def test_a_command_ended_by_a_signal_exits_as_in_a_shell():
    assert await exit_code(*SHELL, "kill -TERM $$") == 128 + signal.SIGTERM


async def test_output_and_input_are_our_own():
    process = run("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"one line\n", timeout=20) == (b"one line\n", None)
    assert process.returncode == 0


async def test_an_unknown_command_is_named_and_exits_127():
    with pytest.raises(CommandNotFoundError, match=r"^no-such-program: command not found in PATH") as error:
        await exit_code("no-such-program")
    assert error.value.exit_code == 127


def test_a_file_of_that_name_here_is_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "server").touch()
    with pytest.raises(CommandNotFoundError, match=r"\./server is here"):
        find_command(["server"], os.environ)


def test_a_file_that_is_no_program_exits_126(tmp_path):
    script = tmp_path / "script"
    script.touch()
    with pytest.raises(CommandNotExecutableError, match=r"is not executable; try `chmod \+x") as error:
        find_command([str(script)], os.environ)
    assert error.value.exit_code == 126
    with pytest.raises(CommandNotExecutableError, match="is a directory"):
        find_command([str(tmp_path)], os.environ)


async def test_a_missing_interpreter_is_named(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o700)
    with pytest.raises(CommandNotFoundError, match="its interpreter is missing: '#!/no/such/interpreter'"):
        await exit_code(str(script))


async def test_a_script_without_a_first_line_says_what_it_needs(tmp_path):
    script = tmp_path / "script"
    script.write_text("echo\n")
    script.chmod(0o700)
    with pytest.raises(CommandNotExecutableError, match=r"a script needs a first line such as #!/bin/sh"):
        await exit_code(str(script))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
async def test_signals_sent_to_us_alone_are_passed_on(number, attached):
    script = f"trap 'echo caught; exit 3' {int(number)}; echo ready; while :; do sleep 0.05; done"
    process = run(*SHELL, script, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout.readline() == b"ready\n"
        await attached()
        process.send_signal(number)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(20) == 3


async def test_killing_us_ends_the_command_and_what_it_started(tmp_path, attached):
    pids = tmp_path / "pids"
    process = run(*SHELL, f"sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait", start_new_session=True)
    await eventually(pids.exists)
    command, grandchild = map(int, pids.read_text().split())
    await attached()
    process.kill()
    process.wait(20)
    await eventually(lambda: not alive(command) and not alive(grandchild))


async def test_killing_us_removes_the_folder_of_our_keys(tmp_path, attached):
    folder, began = tmp_path / "keys", tmp_path / "began"
    folder.mkdir()
    (folder / "key").write_text("secret")
    process = run(
        *SHELL, f"touch {began}; sleep 60", start_new_session=True, env={**os.environ, "TEST_FOLDER": str(folder)}
    )
    await eventually(began.exists)
    await attached()
    assert folder.exists()
    process.kill()
    process.wait(20)
    await eventually(lambda: not folder.exists())


async def test_killing_us_ends_a_command_that_ignores_being_asked(tmp_path, attached):
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ > {pids}.new; mv {pids}.new {pids}; while :; do sleep 0.1; done"
    process = run(*SHELL, script, start_new_session=True)
    await eventually(pids.exists)
    await attached()
    process.kill()
    process.wait(20)
    await eventually(lambda: not alive(int(pids.read_text())))


async def test_leaving_early_ends_the_command():
    async with run_child(["sleep", "60"], os.environ, Signals()) as child:
        pid = child.pid
        assert alive(pid)
    assert not alive(pid)


class Terminal:
    """A process on a terminal of its own, as a shell would start it: in the foreground."""

    def __init__(self, *command):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        os.set_blocking(self.descriptor, False)
        self.output = b""

    async def expect(self, text):
        await eventually(lambda: self._read() or text in self.output)
        self.output = self.output.partition(text)[2]

    def _read(self):
        try:
            self.output += os.read(self.descriptor, 65536)
        except OSError:
            return

    def type(self, text):
        os.write(self.descriptor, text)

    async def has_a_job(self):
        """The shell has given the terminal away: what is typed from now on is the job's."""
        await eventually(lambda: os.tcgetpgrp(self.descriptor) != self.pid)

    async def job_is_stopped(self):
        """All of it is: one that was reading, and has not yet heard that it is to stop, would take what is typed."""
        shell = psutil.Process(self.pid)
        (job,) = shell.children()
        group = [process for process in (job, *job.children()) if os.getpgid(process.pid) == job.pid]
        await eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in group))

    async def exit_code(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            await asyncio.sleep(0.02)
        raise AssertionError(f"it still runs, after {self.output!r}")

    def close(self):
        os.close(self.descriptor)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal():
    terminals = []

    def start(*command):
        terminals.append(Terminal(*command))
        return terminals[-1]

    yield start
    for one in terminals:
        one.close()


async def test_ctrl_c_reaches_the_command_once(terminal, attached):
    script = (
        "import signal, sys, time\n"
        "count = 0\n"
        "def caught(*_):\n global count; count += 1; print('caught', count, flush=True)\n"
        "signal.signal(signal.SIGINT, caught)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print('caught in all', count, flush=True)\n"
    )
    terminal = terminal(sys.executable, "-c", RUN, sys.executable, "-c", script)
    await terminal.expect(b"ready")
    await attached()
    terminal.type(b"\x03")
    await terminal.expect(b"caught 1")
    await asyncio.sleep(0.3)
    terminal.type(b"\n")
    await terminal.expect(b"caught in all 1")
    assert await terminal.exit_code() == 0


STUBBORN = """
import signal, time
def caught(number, _): print("ignored", flush=True)
signal.signal(signal.SIGINT, caught)
signal.signal(signal.SIGTERM, caught)
print("ready", flush=True)
while True: time.sleep(1)
"""


async def test_a_command_that_heeds_nothing_is_killed_by_the_third_ctrl_c(terminal, attached):
    terminal = terminal(sys.executable, "-u", "-c", RUN, sys.executable, "-c", STUBBORN)
    await terminal.expect(b"ready")
    await attached()
    terminal.type(b"\x03")
    await terminal.expect(b"ignored")
    terminal.type(b"\x03")
    await terminal.expect(b"is still running; Ctrl-C once more kills it")
    terminal.type(b"\x03")
    assert await terminal.exit_code() == 128 + signal.SIGKILL


async def test_a_command_that_reads_keys_is_not_killed_by_ctrl_c(terminal, attached):
    source = "import tty; tty.setcbreak(0)\n" + STUBBORN
    terminal = terminal(sys.executable, "-u", "-c", RUN, sys.executable, "-c", source)
    await terminal.expect(b"ready")
    await attached()
    for _ in range(4):
        terminal.type(b"\x03")
        await terminal.expect(b"ignored")
        await asyncio.sleep(0.5)
    assert b"still running" not in terminal.output
    terminal.type(b"\x1c")
    assert await terminal.exit_code() == 128 + signal.SIGQUIT


async def test_a_repl_owns_the_terminal(terminal, attached):
    terminal = terminal(sys.executable, "-c", RUN, sys.executable, "-i", "-q")
    await terminal.expect(b">>> ")
    await attached()
    terminal.type(b"import time; print('as' + 'leep'); time.sleep(60)\n")
    await terminal.expect(b"asleep")
    terminal.type(b"\x03")
    await terminal.expect(b"KeyboardInterrupt")
    terminal.type(b"print(6 * 7)\n")
    await terminal.expect(b"42")
    terminal.type(b"exit(5)\n")
    assert await terminal.exit_code() == 5


async def test_ctrl_z_stops_the_job_and_fg_takes_it_on(terminal):
    terminal = terminal("/bin/bash", "--norc", "--noprofile", "-i")
    command = f"{sys.executable} -c '{RUN}' cat"
    terminal.type(f"PS1='prom''pt> '\n{command}\n".encode())
    await terminal.expect(b"prompt> ")
    await terminal.has_a_job()
    terminal.type(b"first\n")
    await terminal.expect(b"first\r\nfirst")
    terminal.type(b"\x1a")
    await terminal.expect(b"Stopped")
    await terminal.expect(b"prompt> ")
    await terminal.job_is_stopped()
    terminal.type(b"fg\n")
    await terminal.has_a_job()
    terminal.type(b"second\n")
    await terminal.expect(b"second\r\nsecond")
    terminal.type(b"\x04")
    await terminal.expect(b"prompt> ")
    terminal.type(b"exit 9\n")
    assert await terminal.exit_code() == 9


async def test_other_programs_are_not_started_by_vfork():
    """Ctrl-Z amid one would stop the child alone, and the terminal would hang: seldom, so this is looked at by itself."""
    before = subprocess._USE_VFORK
    with Signals().installed():
        assert subprocess._USE_VFORK is False
    assert subprocess._USE_VFORK is before


async def test_the_terminal_is_put_back_after_a_command_that_was_killed(terminal):
    script = "stty raw -echo; kill -KILL $$"
    source = "import sys, termios; print('echo', bool(termios.tcgetattr(0)[3] & termios.ECHO))"
    both = '"$0" -c "$1" /bin/sh -c "$2"; "$0" -c "$3"'
    terminal = terminal("/bin/sh", "-c", both, sys.executable, RUN, script, source)
    await terminal.expect(b"echo True")
    assert await terminal.exit_code() == 0


async def test_descriptors_that_were_inherited_are_the_commands():
    """As the pipe that VS Code gives dlv for its log, on descriptor 3."""
    read, write = os.pipe()
    process = run(sys.executable, "-c", f"import os; os.write({write}, b'log\\n')", pass_fds=(write,))
    os.close(write)
    with os.fdopen(read) as log:
        assert log.read() == "log\n"
    assert process.wait(20) == 0


GIVE = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_PIDFDID="1")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""What systemd.socket(5) does: a listener on descriptor 3, meant for the process that this one becomes."""
TAKE = """
import os, socket
assert "LISTEN_PIDFDID" not in os.environ
print(os.environ["LISTEN_PID"] == str(os.getpid()), socket.socket(fileno=3).getsockname()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has systemd")
def test_listeners_that_systemd_gives_are_the_commands():
    port = free_port()
    given = [sys.executable, "-c", GIVE, str(port), "-c", RUN, sys.executable, "-c", TAKE]
    done = subprocess.run(given, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.returncode) == (f"True {port}\n", 0), done.stderr


def test_listeners_of_another_process_stay_its_own():
    environ = {"LISTEN_PID": "1", "LISTEN_PIDFDID": "2"}
    assert listeners_passed_on(environ, 3) == environ
