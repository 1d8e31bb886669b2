import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from local_proxy import sockets
from local_proxy.ports import Listener, PortWatcher, Sighting, choose
from local_proxy.process_tree import ProcessTree
from local_proxy.sockets import listening_sockets
from tests.support.ports import free_port
from tests.unit.local_proxy.processes import LISTEN, end, eventually, listen, python


@pytest.fixture
def start():
    processes = []

    def start(*arguments, function=listen, **options):
        processes.append(function(*arguments, **options))
        return processes[-1]

    yield start
    for process in processes:
        end(process)


def watcher(process, **options):
    return PortWatcher(ProcessTree(process.pid), **options)


def listener(port, bound="127.0.0.1", inode=0):
    return Listener(host=bound, port=port, bound=bound, inode=inode)


@pytest.mark.parametrize(
    ("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1")]
)
def test_the_port_is_found_with_the_loopback_address_to_connect_to(start, bound, host):
    port = free_port()
    found = watcher(start(f"{bound},{port}")).look().listener
    assert (found.bound, found.host, found.port) == (bound, host, port)
    with socket.create_connection((found.host, found.port), 5):
        pass


def test_a_process_that_does_not_listen_has_no_port(start):
    process = start("import time; print('ready', flush=True); time.sleep(60)", function=python, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert watcher(process).look().listener is None


def test_a_port_of_someone_else_is_not_taken(start):
    start(f"127.0.0.1,{free_port()}")
    ours = start("import time; time.sleep(60)", function=python)
    assert watcher(ours).look().listener is None


def test_a_grandchilds_port_is_found(start):
    port = free_port()
    source = "import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    process = start(source, LISTEN, f"127.0.0.1,{port}", function=python, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.readline()
    found = watcher(process).look().listener
    assert found.port == port
    assert found.pid != process.pid
    os.kill(found.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_a_daemon_in_a_session_of_its_own_is_found_by_its_mark():
    # In a process of its own: adopting orphans can't be undone.
    port = free_port()
    source = f"""
import os, subprocess, sys, time
from local_proxy.ports import PortWatcher
from local_proxy.process_tree import ProcessTree, adopt_orphans
assert adopt_orphans()
stranger = subprocess.Popen([sys.executable, "-c", {LISTEN!r}, "127.0.0.1,0"], stdout=subprocess.PIPE)
stranger.stdout.readline()
daemonize = "import os, sys, time\\nif os.fork(): time.sleep(60)\\nos.setsid()\\nif os.fork(): os._exit(0)\\n"
daemonize += "os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
root = subprocess.Popen([sys.executable, "-c", daemonize, {LISTEN!r}, "127.0.0.1,{port}"],
                        env={{**os.environ, "HAIRPIN_SESSION": "me"}}, stdout=subprocess.PIPE)
root.stdout.readline()
watcher = PortWatcher(ProcessTree(root.pid, ("HAIRPIN_SESSION", "me")))
found = watcher.look()
print(found.listener.port, len(found.others))
os.kill(found.listener.pid, 9), root.kill(), stranger.kill()
"""
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=True, env=os.environ
    )
    assert result.stdout.split() == [str(port), "0"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be moved between CPUs here")
@pytest.mark.parametrize("cpus", [(0, -1), (-1, 0)])
def test_the_one_opened_first_is_taken_whatever_cpu_it_was_opened_on(start, cpus):
    """Each CPU numbers inodes from a range of its own: they say nothing of age."""
    source = f"""
import os, socket, time
cpus, kept = sorted(os.sched_getaffinity(0)), []
for index in {cpus}:
    os.sched_setaffinity(0, {{cpus[index]}})
    kept.append(socket.create_server(("127.0.0.1", 0)))
print(*(one.getsockname()[1] for one in kept), flush=True)
time.sleep(60)
"""
    process = start(source, function=python, stdout=subprocess.PIPE)
    first, second = map(int, process.stdout.readline().split())
    sighting = watcher(process).look()
    assert (sighting.listener.port, [other.port for other in sighting.others]) == (first, [second])


def test_of_several_ports_the_one_opened_first_is_taken_and_the_others_are_told(start):
    first, second = free_port(), free_port()
    sighting = watcher(start(f"127.0.0.1,{max(first, second)}", f"127.0.0.1,{min(first, second)}")).look()
    assert sighting.listener.port == max(first, second)
    assert [other.port for other in sighting.others] == [min(first, second)]


def test_of_several_ports_the_targets_own_number_is_taken(start):
    first, second = free_port(), free_port()
    assert watcher(start(f"127.0.0.1,{first}", f"127.0.0.1,{second}"), preferred=second).look().listener.port == second


def test_the_named_port_is_watched_whoever_has_it(start):
    port = free_port()
    watching = PortWatcher(None, port=port)
    assert watching.look().listener is None
    start(f"0.0.0.0,{port}")
    assert watching.look().listener.host == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells sockets apart")
def test_a_named_port_is_the_commands_if_it_was_given_the_listener_that_was_there_before(start):
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        strangers = frozenset(found.inode for found in listening_sockets())
        ours = start("import time; time.sleep(60)", function=python, pass_fds=(given.fileno(),))
        found = watcher(ours, port=port, strangers=strangers).look().listener
        assert (found.port, found.pid) == (port, ours.pid)
        assert watcher(
            start("import time; time.sleep(60)", function=python), port=port, strangers=strangers
        ).look() == (Sighting(None))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells sockets apart")
@pytest.mark.parametrize("named", [True, False])
async def test_a_listener_that_a_stranger_passes_to_the_command_is_its_own(start, named):
    """By SCM_RIGHTS, long after it was opened: the table of listeners stays the same."""
    source = "import socket, sys, time\ngiven = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)\ntime.sleep(60)"
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        process = start(source, theirs.fileno(), function=python, pass_fds=(theirs.fileno(),))
        strangers = frozenset(found.inode for found in listening_sockets())
        watching = watcher(process, port=port if named else None, strangers=strangers)
        assert watching.look() == Sighting(None)
        socket.send_fds(ours, [b"."], [given.fileno()])
        found = await eventually(lambda: watching.look().listener)
    assert (found.port, found.pid) == (port, process.pid)


def test_with_a_named_port_the_others_are_told_while_nothing_listens_there(start):
    port, named = free_port(), free_port()
    sighting = watcher(start(f"127.0.0.1,{port}"), port=named).look()
    assert sighting.listener is None
    assert [other.port for other in sighting.others] == [port]


def test_a_debuggers_port_is_left_out(start):
    debugger, port = free_port(), free_port()
    process = start(f"127.0.0.1,{debugger}", f"127.0.0.1,{port}", env={**os.environ, "RUBY_DEBUG_PORT": str(debugger)})
    sighting = watcher(process).look()
    assert sighting.listener.port == port
    assert sighting.others == ()


def test_looking_connects_to_nobody(start):
    port = free_port()
    source = LISTEN.replace(
        "time.sleep(60)",
        "sockets[0].settimeout(1)\ntry: sockets[0].accept(); print('disturbed')\n"
        "except TimeoutError: print('left alone')",
    )
    process = start(source, f"127.0.0.1,{port}", function=python, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    watching = PortWatcher(ProcessTree(process.pid), port=port)
    for _ in range(5):
        assert watching.look().listener.port == port
    assert process.stdout.readline() == b"left alone\n"


async def test_a_port_that_closes_comes_back_and_moves_is_seen_each_time():
    ports = sorted({free_port(), free_port()})
    source = """
import socket, sys
kept = None
for line in sys.stdin:
    if kept: kept.close()
    kept = None
    if int(line):
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", int(line)))
        kept.listen()
"""
    process = python(source, stdin=subprocess.PIPE)
    try:
        seen = []
        async with contextlib.aclosing(watcher(process).changes()) as changes:
            for port in (ports[0], 0, ports[0], ports[1]):
                process.stdin.write(f"{port}\n".encode())
                process.stdin.flush()
                sighting = await anext(changes)
                seen.append(sighting.listener and sighting.listener.port)
                if port == ports[1] and seen[-1] is None:  # it may be seen closed before it has moved
                    seen[-1] = (await anext(changes)).listener.port
        assert seen == [ports[0], None, ports[0], ports[1]]
    finally:
        end(process)


def test_the_choice_stays_while_others_come():
    current = listener(9000, inode=5)
    assert choose([listener(8000, inode=1), current], current, None) == current


def test_the_targets_number_takes_over_from_a_chosen_one():
    current, preferred = listener(9000), listener(8080)
    assert choose([current, preferred], current, 8080) == preferred


def test_ipv4_loopback_is_preferred_among_addresses_of_one_port():
    both = [listener(8000, "::", 1), listener(8000, "0.0.0.0", 2)]
    assert choose(both, None, None).bound == "0.0.0.0"


def test_nothing_to_choose_from():
    assert choose([], listener(8000), 8000) is None


def test_the_kernels_table_has_our_own_sockets_and_drops_them():
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        assert [found.host for found in listening_sockets() if found.port == port] == ["127.0.0.1"]
    assert port not in [found.port for found in listening_sockets()]


@pytest.mark.skipif(sys.platform != "linux", reason="netlink and /proc are Linux's")
def test_netlink_and_proc_tell_the_same_of_our_sockets():
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as second,
    ):
        ports = {first.getsockname()[1], second.getsockname()[1]}
        asked = [*sockets._ask_kernel(socket.AF_INET), *sockets._ask_kernel(socket.AF_INET6)]
        read = [*sockets._read_table("/proc/net/tcp"), *sockets._read_table("/proc/net/tcp6")]
        ours = {found for found in asked if found.port in ports}
        assert len(ours) == 2
        assert ours == {found for found in read if found.port in ports}
        assert all(found.inode for found in ours)


def test_a_tree_forgets_who_has_ended(start):
    process = start("import time; time.sleep(60)", function=python)
    tree = ProcessTree(process.pid)
    assert [found.pid for found in tree.processes()] == [process.pid]
    process.kill()
    process.wait()
    assert tree.processes() == []


def test_a_number_that_was_free_meanwhile_makes_nobody_a_member(start, monkeypatch):
    """A program of the command's led a session and has ended; later a stranger's session gets its number."""
    root = start("import time; time.sleep(60)", function=python)
    led = start("import time; time.sleep(60)", function=python, start_new_session=True)
    tree = ProcessTree(root.pid)
    tree._members[led.pid] = psutil.Process(led.pid).create_time()
    assert {process.pid for process in tree.processes()} == {root.pid, led.pid}
    end(led)
    assert {process.pid for process in tree.processes()} == {root.pid}
    stranger = start("import time; time.sleep(60)", function=python, start_new_session=True)
    number = os.getpgid
    monkeypatch.setattr(os, "getpgid", lambda pid: led.pid if pid == stranger.pid else number(pid))
    assert {process.pid for process in tree.processes()} == {root.pid}


async def test_whoever_takes_long_over_a_sighting_gets_the_next_one_soon_all_the_same(start):
    port = free_port()
    process = start(f"127.0.0.1,{port}")
    async with contextlib.aclosing(watcher(process, port=port).changes()) as changes:
        assert (await anext(changes)).listener.port == port
        # As long as a rule may take to its sidecars; were it a look's cost, the pause would be 20 s.
        await asyncio.sleep(1)
        end(process)
        async with asyncio.timeout(15):
            assert (await anext(changes)).listener is None


class Ears:
    """What interception hears, by a test's word."""

    def __init__(self, **believed):
        self.moved = {int(real[1:]): port for real, port in believed.items()}
        self.opened = asyncio.Event()

    def believed(self, port):
        return self.moved.get(port, port)

    async def wait(self, seconds):
        try:
            await asyncio.wait_for(self.opened.wait(), seconds)
        except TimeoutError:
            return False
        self.opened.clear()
        return True


def test_a_moved_port_counts_as_what_the_process_takes_it_for(start):
    first, real = free_port(), free_port()
    process = start(f"127.0.0.1,{first}", f"127.0.0.1,{real}")
    ears = Ears(**{f"p{real}": 8080})
    for options in ({"port": 8080}, {"preferred": 8080}):
        sighting = watcher(process, heard=ears, **options).look()
        assert (sighting.listener.port, sighting.listener.known) == (real, 8080)
        assert [other.known for other in sighting.others] == [first]
    sighting = watcher(process, heard=ears).look()
    assert (sighting.listener.known, [other.known for other in sighting.others]) == (first, [8080])


def test_a_named_port_that_was_taken_before_the_start_is_not_the_commands(start):
    port, real = free_port(), free_port()
    start(f"127.0.0.1,{port}")
    before = frozenset(found.inode for found in listening_sockets())
    ours = start(f"127.0.0.1,{real}")
    assert watcher(ours, port=port, strangers=before).look().listener is None
    assert watcher(ours, port=port, strangers=before, heard=Ears(**{f"p{real}": port})).look().listener.port == real


async def test_a_listen_that_is_heard_is_looked_at_without_waiting(start, monkeypatch):
    monkeypatch.setattr("local_proxy.ports.EAGER_INTERVAL", 60)
    port, ears = free_port(), Ears()
    source = LISTEN.replace("sockets = []", "sockets = []; sys.stdin.readline()")
    process = start(
        source, f"127.0.0.1,{port}", function=python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )

    async def opens():
        await asyncio.sleep(0.1)
        process.stdin.write(b"\n")
        await asyncio.to_thread(process.stdout.readline)
        ears.opened.set()

    async with contextlib.aclosing(watcher(process, heard=ears).changes()) as changes, asyncio.timeout(30):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(opens())
            sighting = await anext(changes)
    assert sighting.listener.port == port
