import contextlib
import dataclasses
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from hairpin.api import Developer
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import ConflictError, HairpinError, NotFoundError, SkewError, UnavailableError
from hairpin.model.session import Mode, SessionSpec
from hairpin.model.target import Target
from hairpin.model.version import OURS, Version
from local_proxy.session_client import SessionClient
from local_proxy.session_store import RequestSeen, SessionChanged, SessionEnded, WatchLost
from tests.support.ports import free_port
from tests.unit.local_proxy.fake_session_api import fake_session_api


def spec(**fields):
    fields = {"target": Target("checkout"), "environment": "alice", **fields}
    return SessionSpec(certificate_request=new_key_and_request()[1], **fields)


@pytest.fixture
async def api(tmp_path):
    async with fake_session_api(tmp_path) as api:
        yield api


async def test_a_session_from_its_creation_to_its_end(api):
    async with SessionClient(api.developer) as client:
        created = await client.create(spec())
        assert (created.name, created.owner) == ("alice-1", "alice")
        assert "BEGIN CERTIFICATE" in created.status.certificate
        assert [session.name for session in await client.list()] == ["alice-1"]
        assert (await client.update("alice-1", local_port=8080)).spec.local_port == 8080
        assert (await client.update("alice-1", local_port=None)).spec.local_port is None
        renewed = await client.update("alice-1", certificate_request=new_key_and_request()[1])
        assert renewed.status.certificate != created.status.certificate
        assert (await client.get("alice-1")).name == "alice-1"
        await client.delete("alice-1")
        assert await client.list() == []


async def test_a_patch_names_only_what_changes(api):
    async with SessionClient(api.developer) as client:
        await client.create(spec())
        await client.update("alice-1", local_port=None)
    assert api.calls[-1] == "PATCH alice-1 localPort"


async def test_ending_a_session_that_is_gone_is_no_error(api):
    async with SessionClient(api.developer) as client:
        await client.delete("gone")


async def test_a_conflict_is_told_as_it_was_sent(api):
    async with SessionClient(api.developer) as client:
        await client.create(spec())
        with pytest.raises(ConflictError, match=r"^alice holds these requests with session alice-1$"):
            await client.create(spec())


async def test_an_unknown_target_is_told_as_it_was_sent(api):
    async with SessionClient(api.developer) as client:
        with pytest.raises(NotFoundError, match=r"no service 'chekout'; did you mean checkout\?"):
            await client.create(spec(target=Target("chekout")))


async def test_a_control_plane_that_is_down_is_named_with_what_to_check(api):
    await api.stop()
    async with SessionClient(api.developer) as client:
        with pytest.raises(
            UnavailableError, match=rf"at https://127.0.0.1:{api.port} can't be reached .*`hairpin mesh up`"
        ):
            await client.version()


async def test_one_that_is_no_control_plane_is_told(tmp_path):
    async def page(request):
        return web.Response(status=502, text="<html>bad gateway</html>")

    async with fake_session_api(tmp_path) as api:
        app = web.Application()
        app.router.add_get("/v1/sessions", page)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=api._tls()).start()
        try:
            async with SessionClient(dataclasses.replace(api.developer, server=f"https://127.0.0.1:{port}")) as client:
                with pytest.raises(HairpinError, match="the control plane answered 502 Bad Gateway"):
                    await client.list()
        finally:
            await runner.cleanup()


async def test_only_the_files_own_authority_is_trusted(api):
    stranger = CertificateAuthority.create("another mesh").certificate
    async with SessionClient(dataclasses.replace(api.developer, certificate_authority=stranger)) as client:
        with pytest.raises(UnavailableError, match="is not the mesh that your file is for"):
            await client.list()
    assert api.calls == []


async def test_a_token_that_is_not_known_is_refused(api):
    async with SessionClient(dataclasses.replace(api.developer, token="guessed")) as client:
        with pytest.raises(HairpinError):
            await client.list()


@pytest.mark.parametrize(
    ("skew", "words"), [(timedelta(hours=3), "3 hours behind"), (-timedelta(hours=3), "3 hours ahead of")]
)
async def test_a_clock_that_is_off_is_told_and_nothing_stays_claimed(api, skew, words):
    api.date = format_datetime(datetime.now(UTC) + skew, usegmt=True)
    async with SessionClient(api.developer) as client:
        with pytest.raises(HairpinError, match=f"this machine's clock is {words} the control plane's .* set the clock"):
            await client.create(spec())
    assert api.sessions == {}


@pytest.mark.parametrize("ago", [timedelta(hours=3), -timedelta(hours=3)])
async def test_a_certificate_out_of_its_time_is_laid_to_the_clock_if_it_is_that(tmp_path, ago):
    # The server signs with a clock that is hours off, which to us is the same as our own being off.
    authority = CertificateAuthority.create("hairpin", now=datetime.now(UTC) - timedelta(days=1))
    key, request = new_key_and_request()
    then = datetime.now(UTC) - ago
    chain = authority.sign(request, ips=("127.0.0.1",), lifetime=timedelta(hours=1), now=then).chain
    (tmp_path / "server.pem").write_text(key + chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem")
    seen = []

    async def version(request):
        seen.append(request.headers.get("Authorization"))
        return web.json_response({}, headers={"Date": format_datetime(then, usegmt=True)})

    app = web.Application()
    app.router.add_get("/v1/version", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server = f"https://127.0.0.1:{runner.addresses[0][1]}"
    developer = Developer(server=server, certificate_authority=authority.certificate, token="secret", user="alice")
    try:
        async with SessionClient(developer) as client:
            with pytest.raises(HairpinError, match=r"this machine's clock is 3 hours (ahead of|behind)"):
                await client.create(spec())
    finally:
        await runner.cleanup()
    assert seen == [None]  # the one that can't be trusted does not get our token


async def test_a_watch_goes_on_over_a_restart_and_ends_with_the_session(api):
    async with SessionClient(api.developer) as client:
        await client.create(spec())
        async with contextlib.aclosing(client.follow("alice-1")) as events:
            assert isinstance(await anext(events), SessionChanged)
            await client.update("alice-1", local_port=8080)
            assert (await anext(events)).session.spec.local_port == 8080
            api.request("alice-1", method="GET", authority="checkout", path="/a", status=200, durationMs=7, served="x")
            assert await anext(events) == RequestSeen(
                method="GET", authority="checkout", path="/a", status=200, duration_ms=7, served="x"
            )
            await api.stop()
            assert isinstance(await anext(events), WatchLost)
            await api.start()
            assert isinstance(await anext(events), SessionChanged)
            await client.delete("alice-1")
            assert isinstance(await anext(events), SessionEnded)
            with pytest.raises(StopAsyncIteration):
                await anext(events)


async def test_a_connection_that_breaks_off_is_told_in_words(tmp_path):
    async def breaks_off(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        request.transport.abort()

    async with fake_session_api(tmp_path) as api:
        app = web.Application()
        app.router.add_get("/v1/sessions/alice-1", breaks_off)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=api._tls()).start()
        server = f"https://127.0.0.1:{port}"
        try:
            async with SessionClient(dataclasses.replace(api.developer, server=server)) as client:
                async with contextlib.aclosing(client.follow("alice-1")) as events:
                    lost = await anext(events)
                    assert isinstance(lost, WatchLost)
                    assert str(lost.error) == f"the connection to the control plane at {server} was lost"
        finally:
            await runner.cleanup()


async def test_a_watch_of_a_session_that_was_forgotten_says_so(api):
    async with SessionClient(api.developer) as client:
        await client.create(spec())
        async with contextlib.aclosing(client.follow("alice-1")) as events:
            await anext(events)
            api.forget()
            await api.stop()
            assert isinstance(await anext(events), WatchLost)
            await api.start()
            with pytest.raises(NotFoundError):
                await anext(events)


async def test_egress_needs_no_target(api):
    async with SessionClient(api.developer) as client:
        assert (await client.create(spec(mode=Mode.EGRESS, target=None))).spec.mode is Mode.EGRESS


async def test_a_control_plane_of_another_protocol_is_refused_and_nothing_stays_claimed(api, monkeypatch):
    status = api._blank().status
    newer = dataclasses.replace(api._blank(), status=dataclasses.replace(status, server=Version("9.9.9", 9)))
    monkeypatch.setattr(api, "_blank", lambda: newer)
    async with SessionClient(api.developer) as client:
        with pytest.raises(
            SkewError, match=r"the control plane's is 9.9.9 \(protocol 9\).*install hairpin 9.9.9 on the"
        ):
            await client.create(spec(client=OURS))
    assert not api.sessions
