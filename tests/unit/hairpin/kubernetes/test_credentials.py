"""Credentials that end while a program runs: they are read again, wherever the kubeconfig has them from."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from aiohttp import web

from hairpin.kubernetes.api import connect
from hairpin.kubernetes.errors import ApiUnauthorizedError


class Server:
    """Takes one token; says who it thinks calls."""

    def __init__(self) -> None:
        self.token, self.refused, self.url = "first", 0, ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            return web.json_response({"message": "Unauthorized"}, status=401)
        if request.headers.get("Upgrade"):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(self.token)
            await socket.close()
            return socket
        return web.json_response({"token": self.token})


@pytest.fixture
async def server():
    made, app = Server(), web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def write(path, url: str, current: str = "here", **user: str) -> None:
    there = {"cluster": "there", "user": "me"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [
            {"name": "here", "cluster": {"server": url}},
            {"name": "there", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "me", "user": user}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me"}},
            {"name": "there", "context": there},
        ],
    }
    path.write_text(yaml.safe_dump(document))


@contextlib.asynccontextmanager
async def connected(tmp_path, server, way):
    """A client, and what has another token be ours."""
    config, file = tmp_path / "config", tmp_path / "token"
    file.write_text("first")
    write(config, server.url, **({"token": "first"} if way == "kubeconfig" else {"tokenFile": str(file)}))

    def become(token: str) -> None:
        if way == "kubeconfig":
            write(config, server.url, "there", token=token)  # and its user is elsewhere by now
        else:
            file.write_text(token)

    async with connect(kubeconfig=str(config)) as api:
        yield api, become


@pytest.mark.parametrize("way", ["kubeconfig", "token file"])
async def test_a_call_that_is_refused_is_made_again_with_what_is_written_now(tmp_path, server, way):
    async with connected(tmp_path, server, way) as (api, become):
        assert await api.call("GET", "/version") == {"token": "first"}
        become("second")
        server.token = "second"
        assert await api.call("GET", "/version") == {"token": "second"}
        assert server.refused == 1


@pytest.mark.parametrize("way", ["kubeconfig", "token file"])
async def test_a_websocket_as_well(tmp_path, server, way):
    async with connected(tmp_path, server, way) as (api, become):
        become("second")
        server.token = "second"
        async with api.websocket("/portforward") as socket:
            assert await socket.receive_str() == "second"


async def test_one_that_stays_refused_is_refused_after_one_more_try(tmp_path, server):
    async with connected(tmp_path, server, "token file") as (api, _):
        server.token = "second"
        with pytest.raises(ApiUnauthorizedError):
            await api.call("GET", "/version")
        assert server.refused == 2
        with pytest.raises(ApiUnauthorizedError):
            async with api.websocket("/portforward"):
                pass
        assert server.refused == 4
