import contextlib
import os
import pty
import time
import tty

import pytest

from local_proxy.console import CALLS_PER_SECOND, MOST_CALLS, Console


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_into_a_file_lines_are_plain(pipe):
    console = Console(environ={}, descriptor=pipe[1])
    console.say("session up")
    assert os.read(pipe[0], 100) == b"hairpin session up\n"


def test_on_a_terminal_the_prefix_is_dim_and_raw_mode_gets_its_carriage_return():
    outer, inner = pty.openpty()
    try:
        tty.setraw(inner)
        Console(environ={"TERM": "xterm"}, descriptor=inner).say("up")
        assert os.read(outer, 100) == b"\x1b[2mhairpin\x1b[0m up\r\n"
    finally:
        os.close(outer)
        os.close(inner)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_no_style_where_none_is_wanted(environ):
    outer, inner = pty.openpty()
    try:
        Console(environ=environ, descriptor=inner).say("up")
        assert os.read(outer, 100) == b"hairpin up\r\n"  # the terminal's own carriage return
    finally:
        os.close(outer)
        os.close(inner)


def test_quiet_says_only_what_went_wrong(pipe):
    console = Console(quiet=True, environ={}, descriptor=pipe[1])
    console.say("up")
    console.request("GET /")
    console.warn("lost")
    assert os.read(pipe[0], 100) == b"hairpin lost\n"


def test_without_requests_the_rest_is_said(pipe):
    console = Console(requests=False, environ={}, descriptor=pipe[1])
    console.request("GET /")
    console.say("up")
    assert os.read(pipe[0], 100) == b"hairpin up\n"


def test_a_path_cannot_move_the_cursor(pipe):
    Console(environ={}, descriptor=pipe[1]).request("GET /\x1b[2J\nx")
    assert os.read(pipe[0], 100) == "hairpin GET /\ufffd[2J\ufffdx\n".encode()


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        Console(environ={}, descriptor=writing).say("up")
    finally:
        os.close(writing)


def test_calls_past_a_rate_are_left_out_and_counted(pipe, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("local_proxy.console.time.monotonic", lambda: now[0])
    console = Console(environ={}, descriptor=pipe[1])
    for number in range(MOST_CALLS + 7):
        console.call(f"call {number}")
    assert os.read(pipe[0], 9000).decode().splitlines() == [f"hairpin call {number}" for number in range(MOST_CALLS)]
    now[0] += 2 / CALLS_PER_SECOND
    console.call("later")
    console.call("and later")
    console.call("too many again")
    assert os.read(pipe[0], 9000).decode().splitlines() == [
        "hairpin <- 7 more calls, too many to tell", "hairpin later", "hairpin and later",
    ]  # fmt: skip


def test_where_requests_get_no_lines_calls_get_none(pipe):
    console = Console(requests=False, environ={}, descriptor=pipe[1])
    console.call("call")
    console.say("up")
    assert os.read(pipe[0], 100) == b"hairpin up\n"


@pytest.mark.parametrize("blocking", [True, False], ids=["waits", "does not wait, as a command made it"])
def test_who_says_something_does_not_wait_for_a_reader_and_every_line_arrives_in_order(blocking):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b"x" * 4096)
    os.set_blocking(writing, blocking)
    console = Console(descriptor=writing)
    began = time.monotonic()
    for number in range(3):
        console.say(f"line {number}")
    assert time.monotonic() - began < 5
    with os.fdopen(reading, "rb") as reader:
        assert reader.read(filled) == b"x" * filled
        assert [reader.readline() for _ in range(3)] == [b"hairpin line %d\n" % number for number in range(3)]
        console.say("at once again")
        assert reader.readline() == b"hairpin at once again\n"
        os.close(writing)
