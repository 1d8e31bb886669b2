"""Small programs for the tests of ports and processes."""

import asyncio
import subprocess
import sys
import time

import psutil

LISTEN = """
import socket, sys, time
sockets = []
for address in sys.argv[1:]:
    host, _, port = address.rpartition(",")
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, int(port)))
    listening.listen()
    sockets.append(listening)
print("ready", flush=True)
time.sleep(60)
"""


def python(source, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", source, *map(str, arguments)], **options)


def listen(*addresses, **options):
    """A process that listens on each `HOST,PORT`."""
    process = python(LISTEN, *addresses, stdout=subprocess.PIPE, **options)
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process):
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(condition, seconds=30):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.02)
    return result
