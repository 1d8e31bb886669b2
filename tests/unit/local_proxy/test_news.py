"""What becomes of a session, told once: an outage has many who notice it."""

from __future__ import annotations

import logging

import pytest

from hairpin.errors import HairpinError, UnavailableError
from hairpin.model.session import Session, SessionSpec, SessionStatus
from hairpin.model.session_shapes import NEVER
from hairpin.model.target import Target
from local_proxy.news import News
from local_proxy.run import _ConsoleHandler

SPEC = SessionSpec(target=Target("checkout"), environment="alice")


class Lines:
    """A console that keeps them."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    warn = say


@pytest.fixture
def console():
    return Lines()


@pytest.fixture
def news(console):
    return News(console)


def session(*tunnels):
    return Session(
        name="s", namespace="shop", owner="alice", created=NEVER, spec=SPEC, status=SessionStatus(tunnels=tunnels)
    )


def away(why):
    return UnavailableError(f"the API server at https://10.0.0.1:6443 can't be reached: {why}")


def test_who_ever_notices_that_the_api_server_is_away_it_is_one_line(news, console):
    news.watch_lost(away("the connection broke off"))
    for _ in range(4):
        news.way_lost(away("Connect call failed ('10.0.0.1', 6443)"))
    news.failed(away("no answer in time"))
    news.watch_lost(away("Network is unreachable"))
    assert console.lines == [f"{away('the connection broke off')}; trying on"]


def test_the_next_time_is_told_again(news, console):
    news.way_lost(away("refused"))
    news.changed(session("agent-0"), session())
    news.changed(session(), session("agent-0"))
    news.watch_lost(away("refused"))
    first, lost, up, again = console.lines
    assert first == again == f"{away('refused')}; trying on"
    assert (lost, up) == (
        "the tunnel to agent-0 is lost: the cluster answers until it is back",
        "the tunnel to agent-0 is up",
    )


LOST, UP = "the tunnel to agent-0 is lost: the cluster answers until it is back", "the tunnel to agent-0 is up"


def test_a_control_plane_that_is_back_may_tell_what_was_before(news, console):
    news.found_lost("agent-0")
    news.changed(session(), session("agent-0"))  # written down before the loss
    assert console.lines == [LOST]
    news.changed(session("agent-0"), session())
    assert console.lines == [LOST]
    news.changed(session(), session("agent-0"))
    assert console.lines == [LOST, UP]
    news.changed(session("agent-0"), session())
    assert console.lines == [LOST, UP, LOST]


def test_it_is_believed_in_the_end(news, console):
    news.found_lost("agent-0")
    news.changed(session(), session("agent-0", "agent-1"))
    news.settled(session("agent-0", "agent-1"))
    news.settled(session("agent-0", "agent-1"))
    assert console.lines == [LOST, "the tunnel to agent-1 is up", UP]


def test_what_else_is_wrong_is_told_beside_it(news, console):
    news.way_lost(away("refused"))
    other = HairpinError("you may not connect to pod shop/agent-0: forbidden")
    news.way_lost(other)
    pod = UnavailableError("pod shop/agent-0 can't be reached: no route")
    news.way_lost(pod)
    news.way_lost(UnavailableError("port 9443 of pod shop/agent-0 can't be reached: connection refused"))
    assert console.lines[1:] == [str(other), f"{pod}; trying on"]


def test_envoys_own_words_of_each_try_are_left_out(console):
    handler = _ConsoleHandler(console)

    def said(message):
        handler.emit(logging.LogRecord("hairpin.envoy", logging.WARNING, "", 0, message, None, None))

    said(
        "the laptop's Envoy: reverse_tunnel: Connection failed - error 'Connection closed', cleaning up host 127.0.0.1:1"
    )
    said("the laptop's Envoy ended with 1")
    assert console.lines == ["the laptop's Envoy ended with 1"]
