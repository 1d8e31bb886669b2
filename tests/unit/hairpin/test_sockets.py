"""Connections that notice a dead end: what the kernel is asked for, at the connections that clients really make."""

import asyncio
import socket
import sys

import pytest

from hairpin.sockets import GONE_SECONDS, IDLE_SECONDS, watched_socket
from local_proxy.session_client import SessionClient
from tests.unit.local_proxy.fake_session_api import fake_session_api


def options(found):
    get = found.getsockopt
    return {
        name: get(socket.SOL_SOCKET if name == "SO_KEEPALIVE" else socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's options")
async def test_the_kernel_asks_the_other_end_and_gives_up_after_ten_seconds():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.sockets[0].getsockname())
        with watched_socket(address) as found:
            got = options(found)
    assert got.pop("SO_KEEPALIVE")
    assert got["TCP_KEEPIDLE"] + got["TCP_KEEPINTVL"] * got["TCP_KEEPCNT"] == GONE_SECONDS
    assert (got["TCP_KEEPIDLE"], got["TCP_USER_TIMEOUT"]) == (IDLE_SECONDS, 1000 * GONE_SECONDS)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's options")
async def test_the_session_clients_connections_are_watched(tmp_path, monkeypatch):
    made = []

    def noted(address):
        made.append(watched_socket(address))
        return made[-1]

    monkeypatch.setattr("local_proxy.session_client.watched_socket", noted)
    async with fake_session_api(tmp_path) as api, SessionClient(api.developer) as client:
        await client.list()
        assert [options(found)["TCP_USER_TIMEOUT"] for found in made] == [10_000]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a Linux option")
def test_a_system_without_the_options_is_left_as_it_is():
    # A Unix socket takes none of them.
    with watched_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "")) as found:
        assert found.family is socket.AF_UNIX
