"""Each program, as it is, as an ordinary user on a machine of its own beside a real Istio mesh, whose policy refuses one service.

The HTTPS host is one that only the mesh knows: the laptop has no name server, and the address that the cluster's gives out is
nobody's but for a ServiceEntry.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from hairpin.model.mesh import AGENT
from tests.laptop import builds
from tests.laptop.results import answer, cases, check_error
from tests.laptop.runs import driven
from tests.laptop.table import PROGRAMS
from tests.support.cluster.images import PYTHON, SOURCE
from tests.support.cluster.mesh import PARTNER
from tests.support.cluster.pki import Pki
from tests.support.istio_mesh import DEVELOPERS, SHOP, IstioMesh, install

pytestmark = [pytest.mark.istio, pytest.mark.timeout(120, func_only=True)]

VAULT = "vault.partner.test"
PLACE = Path("/mnt/programs")
AUTHORITY = "/mnt/authority.crt"
COLUMNS = {
    "mesh": {False: "http://inventory/", True: "checkout:7070"},
    "secure": {False: f"https://{VAULT}/"},
    "refused": {False: "http://frontend/", True: "frontend:7070"},
    "ruled-out": {False: "http://checkout:8443/", True: "checkout:8443"},
    "unknown": {False: "http://nobody/", True: "nobody:7070"},
}
UDP = ("sendto", "connect", "sendmsg")
CLOSED = (
    r"(?i:connection reset|ECONNRESET|socket hang up|other side closed|RemoteDisconnected|disconnected without|\bEOF\b|"
    r"received no bytes|end of file|connection closed|closed before|Empty reply|Socket closed|error reading server preface)"
    r"|Last error: Failed to connect \("  # grpc-js, if the end comes before the server's first frame
)
"""What programs say of a connection that was taken and closed without a word."""
HTTP = [program for program in PROGRAMS if not program.grpc]
STATUS = {"key": "status", "argv": ["cat", "/proc/self/status"], "environment": {}}
POLICY = {
    "apiVersion": "hairpin.dev/v1alpha1",
    "kind": "EgressPolicy",
    "metadata": {"name": "default", "namespace": SHOP},
    "spec": {
        "rules": [
            {"action": "Deny", "hosts": ["frontend", "frontend.shop.svc.cluster.local"], "reason": "it is the entry"}
        ]
    },
}


def in_case(key, *arguments, **more):
    """One of `sockets.py`. A datagram that leaks here has nowhere to go: the laptop's network is the mesh's alone."""
    return {"key": key, "argv": [PYTHON, f"{SOURCE}/tests/laptop/sockets.py", *arguments], "environment": {}, **more}


def first(key, case, port):
    return in_case(key, case, "frontend", str(port), first=True)


FIRST = (
    first("blocking", "first_refused", 80),
    first("blocking, by gRPC's port", "first_refused", 7070),
    first("not blocking", "first_refused_without_waiting", 81),
)


async def partner(shop, pki: Pki) -> None:
    """The server, and what the mesh is told of it."""
    files = pki.server("vault", [VAULT])
    data = {
        name: base64.b64encode(file.read_bytes()).decode()
        for name, file in zip(("tls.crt", "tls.key"), files, strict=True)
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault", "namespace": SHOP}, "data": data}
    await shop.client.apply(secret, yaml.safe_load((Path(__file__).parent / "vault.yaml").read_text()))
    pod = await shop.client.wait_for("Pod", "vault", is_ready, namespace=SHOP, seconds=60)
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "vault", "namespace": SHOP},
        "spec": {
            "hosts": [VAULT],
            "addresses": [PARTNER],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
            "endpoints": [{"address": pod["status"]["podIP"], "ports": {"tls": 8443}}],
        },
    }
    await shop.client.apply(entry)


def is_ready(pod):
    return any(found["type"] == "Ready" and found["status"] == "True" for found in pod["status"].get("conditions", ()))


@pytest.fixture(scope="module")
async def outcome(tmp_path_factory, programs, shop):
    """What came of each program in each column."""
    pki = Pki(tmp_path_factory.mktemp("partner"))
    shop.laptop.command("true")  # its file systems are there then
    shop.host.run("mkdir", "-p", str(PLACE))
    shop.host.run("mount", "--bind", str(builds.cache()), str(PLACE))
    shop.host.inside(AUTHORITY).write_bytes(pki.certificate.read_bytes())
    await install(shop)
    try:
        await partner(shop, pki)
        await shop.client.apply(DEVELOPERS, POLICY)
        wanted = [
            STATUS,
            *FIRST,
            *(in_case(f"udp by {way}", "udp_refused", way) for way in UDP),
            *cases(COLUMNS, AUTHORITY, root=PLACE, python=PYTHON),
        ]
        return await driven(
            IstioMesh(shop), wanted, "-n", SHOP, "--udp", "refuse", "--refuse", "checkout:8443", python=PYTHON
        )
    finally:
        for kind, name in (
            ("EgressPolicy", "default"),
            ("ServiceEntry", "vault"),
            ("Pod", "vault"),
            ("Secret", "vault"),
        ):
            await shop.client.delete(kind, name, SHOP)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_the_mesh_answers(outcome, program):
    said = answer(outcome[1], program, "mesh")
    assert said["who"] == ("checkout" if program.grpc else "inventory")
    assert f"/sa/{AGENT}" in said["headers"]["x-forwarded-client-cert"]


@pytest.mark.parametrize("program", HTTP, ids=str)
def test_an_https_host_that_only_the_mesh_knows_answers(outcome, program):
    assert answer(outcome[1], program, "secure") == {"who": "vault", "path": "/", "host": VAULT}


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_what_a_policy_refuses_is_refused_or_closed(outcome, program):
    """Refused where the agent's word is known: it is forgotten after seconds, and a connect that does not block can't wait for it."""
    check_error(outcome[1], program, "refused", f"{program.refused}|{CLOSED}")


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_what_a_rule_refuses_reads_as_this_language_has_it(outcome, program):
    check_error(outcome[1], program, "ruled-out", program.refused)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_an_unknown_name_reads_as_this_language_has_it(outcome, program):
    check_error(outcome[1], program, "unknown", program.unknown)


def test_the_user_is_told_which_rule_refused(outcome):
    run, _ = outcome
    assert [line for line in run.errors if "frontend" in line and "it is the entry" in line], run.errors


def test_programs_run_as_an_ordinary_user(outcome):
    status = dict(line.split(":", 1) for line in outcome[1]["status"]["output"].splitlines())
    assert status["Uid"].split() == ["1000"] * 4
    assert int(status["CapEff"], 16) == 0


@pytest.mark.parametrize("way", UDP)
def test_udp_into_the_mesh_is_refused_in_words(outcome, way):
    result = outcome[1][f"udp by {way}"]
    assert result["code"] == 0, result["output"]


@pytest.mark.parametrize("key", [case["key"] for case in FIRST])
def test_the_first_connect_to_what_a_policy_refuses(outcome, key):
    assert outcome[1][key]["code"] == 0, outcome[1][key]["output"]
