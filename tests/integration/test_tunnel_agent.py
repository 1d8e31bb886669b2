"""The agent as its users run it, `python -m agent --config FILE`, against a control plane's API over TLS."""

from __future__ import annotations

import signal
from datetime import timedelta

import aiohttp
import pytest

from tests.support.agent_process import Api, Setting, content_of, has_status, laptop_of, new_setting, running, serving
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.tunnels import HOST

pytestmark = pytest.mark.envoy


@pytest.fixture
def setting(tmp_path) -> Setting:
    return new_setting(tmp_path)


async def test_its_life_from_certificate_to_drain(tmp_path):
    setting = new_setting(tmp_path, drainSeconds=4)  # long enough to be seen
    api = Api(setting.authority)
    async with running(setting) as process:
        await eventually(
            lambda: has_status(setting, 503), what="it listens for readiness and waits for the control plane"
        )
        async with serving(api, setting.directory, setting.api_port):
            await eventually(setting.is_ready, what="it is ready")
            await eventually(lambda: api.tunnels, what="it reports")
            assert api.tunnels[0] == []
            async with echo_process("app") as app, await laptop_of(setting, app.http):
                await eventually(lambda: api.tunnels[-1] == ["alice"], what="the tunnel is reported up")
                async with (
                    aiohttp.ClientSession(headers={"x-hairpin-session": "alice"}) as client,
                    client.get(f"http://{HOST}:{setting.ports['steer']}/") as response,
                ):
                    assert (await response.json())["who"] == "app"
                request = await eventually(lambda: api.requests, what="the request is reported")
                assert (request[0]["session"], request[0]["served"]) == ("alice", "via_upstream")
            await eventually(lambda: api.tunnels[-1] == [], what="the tunnel is reported down")
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: has_status(setting, 503), what="it is not ready while it drains")
            await eventually(lambda: api.open == 0, what="its stream of reports ends")
            assert await process.wait() == 0
    keys = [path for path in (setting.directory / "run").rglob("*") if b"PRIVATE KEY" in content_of(path)]
    assert {path.name for path in keys} == {"identity.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


async def test_it_outlives_its_control_plane_and_reports_in_full_when_that_is_back(setting):
    first, second = Api(setting.authority), Api(setting.authority)
    async with running(setting), echo_process("app") as app:
        async with serving(first, setting.directory, setting.api_port):
            await eventually(setting.is_ready, what="it is ready")
            laptop = await laptop_of(setting, app.http)
            await laptop.start()
            await eventually(lambda: first.tunnels and first.tunnels[-1] == ["alice"], what="the tunnel is up")
        assert await setting.is_ready()
        async with serving(second, setting.directory, setting.api_port):
            await eventually(lambda: second.tunnels, what="it reports again")
            assert second.tunnels[0] == ["alice"]
            assert second.certificates == 0
            await laptop.stop()
            await eventually(lambda: second.tunnels[-1] == [], what="and goes on reporting")


async def test_its_certificate_is_renewed_at_half_of_its_life(setting):
    api = Api(setting.authority, lifetime=timedelta(seconds=4))
    async with running(setting), serving(api, setting.directory, setting.api_port):
        await eventually(lambda: api.certificates >= 3, what="a third certificate")
        await eventually(setting.is_ready, what="it is ready")


async def test_a_token_that_is_refused_is_an_error_that_says_so(setting):
    (setting.directory / "token").write_text("another")
    async with serving(Api(setting.authority), setting.directory, setting.api_port), running(setting) as process:
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"401" in errors
    assert b"this token is nobody's" in errors
    assert b"Traceback" not in errors


async def test_a_wrong_field_is_an_error_that_names_it(setting):
    setting.file.write_text(setting.file.read_text().replace("drainSeconds: 0.5", "drainSecond: 0.5"))
    async with running(setting) as process:
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("agent: drainSecond: 0.5 is not a known field; did you mean drainSeconds?")
