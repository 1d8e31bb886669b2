"""The custom resources' definitions on a real API server: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from hairpin.kubernetes.crds import custom_resource_definitions
from hairpin.model.match_json import match_to_json
from tests.support.cluster.client import ApiError
from tests.unit.hairpin.model.strategies import matches

SESSIONS = "/apis/hairpin.dev/v1alpha1/namespaces/{}/sessions"
BASE = {"owner": "alice", "target": {"name": "checkout"}, "environment": "alice"}
STEAL = {"owner": "alice", "target": {"name": "checkout"}}
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


@pytest.fixture(scope="module")
async def definitions(api_server):
    """The definitions, established: structural, and within the bounds of CEL's cost."""
    await api_server.client.apply(*custom_resource_definitions())
    await api_server.established()


def session(spec, name="a", **fields):
    return {
        "apiVersion": "hairpin.dev/v1alpha1",
        "kind": "Session",
        "metadata": {"name": name},
        "spec": spec,
        **fields,
    }


@pytest.fixture
async def judge(definitions, api_server, namespace):
    """Call it with a Session for what the API server makes of it; nothing is kept."""

    async def judged(document, query=STRICT):
        return await api_server.client.request("POST", SESSIONS.format(namespace), document, query=query)

    return judged


def with_match(match):
    return {**STEAL, "match": match}


def with_target(**target):
    return {**BASE, "target": {"name": "checkout", **target}}


GOOD = [
    BASE,
    with_match({"header": {"name": "X-User", "exact": "42"}}),
    with_match({"header": {"name": "x-user", "exact": "é"}}),
    with_match({"baggage": {"key": "env", "present": True}}),
    with_match({"and": [{"or": [{"not": {"not": {"header": {"name": "x", "regex": "a.*"}}}}]}, {"method": "POST"}]}),
    {"owner": "alice", "mode": "egress"},
    {"owner": "alice", "mode": "egress", "environment": "alice"},
    {**BASE, "identity": "target", "leaseSeconds": 3600, "localPort": 8080, "certificateRequest": "-----BEGIN…"[:10]},
    with_target(port=8080, namespace="shop"),
    with_target(port="http-api"),
    with_target(kind="deployment", name="checkout.v2", port=65535),
    {**BASE, "owner": "system:serviceaccount:ci:alice"},
    {**BASE, "environment": "feature/x_1"},
]


@pytest.mark.parametrize("spec", GOOD, ids=str)
async def test_a_good_session_is_taken(judge, spec):
    assert (await judge(session(spec)))["spec"]["owner"] == spec["owner"]


PORT_NAME = (
    "spec.target.port: Invalid value: {}: is not a port's name; use a-z, 0-9 and -, at most 15, with a letter among them, "
    "or a number without quotes"
)
ENVIRONMENT = (
    "spec.environment: Required value: is missing; name an environment or a match: "
    "without either the session would take everyone's requests"
)
NO_CONDITION = (
    "has no condition that is known; write one of header, baggage, tracestate, path, query, method, and, or, not, "
    "as in {method: POST}"
)
BAD = [
    ({}, "spec.owner: Required value: is missing; write your own user name, as `kubectl auth whoami` shows it"),
    ({}, "spec.target: Required value: is missing; name a target, or use mode egress"),
    ({**BASE, "owner": ""}, "spec.owner: Required value: is missing; write your own user name"),
    (STEAL, ENVIRONMENT),
    ({"owner": "alice", "environment": "alice"}, "spec.target: Required value: is missing; name a target"),
    ({**BASE, "mode": "stael"}, 'spec.mode: Unsupported value: "stael": supported values: "steal", "mirror", "egress"'),
    (
        {**BASE, "mode": "egress"},
        "spec.target: Invalid value: {}: has no meaning in mode egress, which takes no requests; "
        "leave it out, or use mode steal",
    ),
    (
        {"owner": "alice", "mode": "egress", "match": {"method": "GET"}},
        "spec.match: Invalid value: {}: has no meaning in mode egress",
    ),
    ({**BASE, "leaseSeconds": 0}, "spec.leaseSeconds: Invalid value: 0: spec.leaseSeconds in body should be greater"),
    ({**BASE, "leaseSeconds": 3601}, "spec.leaseSeconds in body should be less than or equal to 3600"),
    ({**BASE, "localPort": 65536}, "spec.localPort in body should be less than or equal to 65535"),
    ({**BASE, "identity": "admin"}, 'spec.identity: Unsupported value: "admin": supported values: "agent", "target"'),
    (
        {**BASE, "environment": "a b"},
        "spec.environment: Invalid value: {}: is not an environment's name; "
        "use what a header or a baggage member can carry: letters, digits, and signs but , ; and blanks",
    ),
    (
        {**BASE, "certificateRequest": "é"},
        "spec.certificateRequest: Invalid value: {}: is not a text in PEM; send it whole",
    ),
    (
        with_target(name="checkout.v2"),
        "spec.target.name: Invalid value: {}: is not what a Service can be called; "
        "use a-z, 0-9 and - (not at the ends), at most 63",
    ),
    (with_target(name="Checkout"), "spec.target.name: Invalid value: {}: is not a name of Kubernetes objects; use a-z"),
    (with_target(namespace="Shop"), "spec.target.namespace: Invalid value: {}: is not a DNS label; use a-z, 0-9 and -"),
    (with_target(kind="job"), 'spec.target.kind: Unsupported value: "job": supported values: "service", "deployment"'),
    (with_target(port=0), "spec.target.port: Invalid value: {}: is out of range; use 1 to 65535"),
    (with_target(port=65536), "spec.target.port: Invalid value: {}: is out of range; use 1 to 65535"),
    (with_target(port="80"), PORT_NAME),
    (with_target(port="Http"), PORT_NAME),
    (with_target(port="x" * 16), PORT_NAME),
    (with_match({}), f"spec.match: Invalid value: {{}}: {NO_CONDITION}"),
    (with_match({"headr": {}}), f"spec.match: Invalid value: {{}}: {NO_CONDITION}"),
    (with_match({"and": [{"headr": {}}]}), f"spec.match.and[0]: Invalid value: {{}}: {NO_CONDITION}"),
    (with_match({"path": {"exact": "/"}, "method": "GET"}), "spec.match: Too many: 2: must have at most 1 item"),
    # What is not known might have narrowed the match: it is not dropped in silence.
    (with_match({"path": {"exact": "/"}, "headr": {}}), "spec.match: Too many: 2: must have at most 1 item"),
    (with_match({"path": {"exact": "/", "prefx": "/"}}), "spec.match.path: Too many: 2: must have at most 1 item"),
    (
        with_match({"header": {"name": "x"}}),
        "spec.match.header: Invalid value: {}: says not one thing about its value; "
        "give one of exact, prefix, suffix, contains, regex, present",
    ),
    (with_match({"header": {"name": "x", "present": False}}), "spec.match.header.present: Unsupported value: false"),
    (
        with_match({"header": {"name": "x-hairpin-session", "exact": "1"}}),
        "spec.match.header.name: Invalid value: {}: is one of hairpin's own; match another header",
    ),
    (
        with_match({"header": {"name": ":path", "exact": "/"}}),
        "spec.match.header.name: Invalid value: {}: is no header; match `path` or `query`",
    ),
    (with_match({"header": {"name": "x", "exact": " a"}}), 'spec.match.header.exact: Invalid value: " a": '),
    (with_match({"method": "get"}), 'spec.match.method: Unsupported value: "get": supported values: "GET"'),
    (with_match({"and": []}), "spec.match.and in body should have at least 1 items"),
    ({**BASE, "envrionment": "x"}, 'unknown field "spec.envrionment"'),
]


@pytest.mark.parametrize(("spec", "message"), BAD, ids=[str(spec)[:60] for spec, _ in BAD])
async def test_a_bad_session_is_refused_at_the_door(judge, spec, message):
    with pytest.raises(ApiError) as refused:
        await judge(session(spec))
    # The API server says `"string"`, `"object"` or `""` in place of a value that a CEL rule refuses.
    said = {message.replace("{}", shown, 1) for shown in ('"string"', '"object"', '""')}
    assert any(text in refused.value.message for text in said), refused.value.message


@pytest.mark.parametrize("name", ["a.b", "x" * 64])
async def test_a_name_is_a_label_since_it_is_half_of_a_certificates_name(judge, name):
    with pytest.raises(ApiError, match=r"metadata\.name is not a DNS label; use a-z, 0-9 and -"):
        await judge(session(BASE, name))


async def test_what_is_left_out_is_filled_in(judge):
    spec = (await judge(session(BASE)))["spec"]
    assert spec == {
        **BASE,
        "target": {"name": "checkout", "kind": "service"},
        "mode": "steal",
        "leaseSeconds": 10,
        "identity": "agent",
    }


def examples(strategy, count):
    found = []

    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


async def test_every_match_of_the_model_is_taken_and_kept_as_it_is(judge):
    written = [match_to_json(match) for match in examples(matches(), 200)]
    for match in written:
        kept = await judge(session(with_match(match)), query={"dryRun": "All"})
        assert kept["spec"]["match"] == match
    assert len(written) >= 100


CHANGES = {
    "owner": {"owner": "bob"},
    "target": {"target": {"name": "payment"}},
    "environment": {"environment": None},
    "match": {"match": None},
    "mode": {"mode": "egress", "target": None, "match": None},
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_a_session_is_cannot_be_changed(definitions, api_server, namespace, name):
    await api_server.client.create(session({**BASE, "match": {"method": "GET"}}), namespace=namespace)
    with pytest.raises(ApiError) as refused:
        await api_server.client.patch("Session", "a", {"spec": CHANGES[name]}, namespace=namespace)
    assert (
        f'spec.{name}: Invalid value: "object": can\'t be changed; end the session and make another'
        in refused.value.message
    )


async def test_a_match_cannot_be_changed_below_what_is_described(definitions, api_server, namespace):
    def deep(value):
        return {"not": {"not": {"not": {"not": {"header": {"name": "x", "exact": value}}}}}}

    await api_server.client.create(session(with_match(deep("1"))), namespace=namespace)
    with pytest.raises(ApiError, match=r"spec\.match: .* can't be changed"):
        await api_server.client.patch("Session", "a", {"spec": {"match": deep("2")}}, namespace=namespace)


async def test_what_a_laptop_keeps_up_to_date_can_be_changed(definitions, api_server, namespace):
    await api_server.client.create(session({**BASE, "match": {"method": "GET"}}), namespace=namespace)
    change = {"localPort": 8080, "certificateRequest": "-----BEGIN CERTIFICATE REQUEST-----", "leaseSeconds": 20}
    changed = await api_server.client.patch("Session", "a", {"spec": change}, namespace=namespace)
    assert changed["spec"].items() >= change.items()


async def test_the_status_is_apart(definitions, api_server, namespace):
    kept = await api_server.client.create(session(BASE, status={"phase": "Active"}), namespace=namespace)
    assert "status" not in kept
    status = {"phase": "Active", "id": f"a.{namespace}", "agents": [{"name": "x-0", "tunnelPort": 1, "egressPort": 2}]}
    change = {"status": status, "spec": {"localPort": 1}}
    kept = await api_server.client.patch("Session", "a", change, namespace=namespace, subresource="status")
    assert kept["status"] == status
    assert "localPort" not in kept["spec"]
    with pytest.raises(ApiError, match=r'status\.phase: Unsupported value: "Gone"'):
        await api_server.client.patch(
            "Session", "a", {"status": {"phase": "Gone"}}, namespace=namespace, subresource="status"
        )


async def test_columns_and_short_names(definitions, api_server, namespace):
    await api_server.client.create(session(BASE), namespace=namespace)
    await api_server.client.patch(
        "Session", "a", {"status": {"phase": "Ready"}}, namespace=namespace, subresource="status"
    )
    table = (await api_server.kubectl("get", "hps", "-n", namespace)).stdout.splitlines()
    assert table[0].split() == ["NAME", "OWNER", "TARGET", "ENVIRONMENT", "MODE", "PHASE", "AGE"]
    assert table[1].split()[:6] == ["a", "alice", "checkout", "alice", "steal", "Ready"]
    environment = {"apiVersion": "hairpin.dev/v1alpha1", "kind": "Environment", "metadata": {"name": namespace}}
    spec = {"routingKey": {"baggage": "env"}, "description": "Alice's", "members": ["alice"]}
    await api_server.client.apply({**environment, "spec": spec})
    table = (await api_server.kubectl("get", "hpe", namespace)).stdout.splitlines()
    assert table[0].split() == ["NAME", "ROUTING", "KEY", "DESCRIPTION", "AGE"]
    assert table[1].split()[:3] == [namespace, '{"baggage":"env"}', "Alice's"]
    await api_server.client.delete("Environment", namespace)


async def test_a_namespace_goes_with_its_sessions(definitions, api_server):
    namespace = await api_server.new_namespace()
    await api_server.client.create(session(BASE), namespace=namespace)
    await api_server.client.delete("Namespace", namespace)
    await api_server.client.wait_gone("Namespace", namespace)


OTHERS = [
    ("Environment", {"spec": {"routingKey": {"header": "x-env"}}}, ""),
    ("Environment", {}, ""),
    ("Environment", {"spec": {"routingKey": {}}}, "names more than one carrier, or none; write one of header, baggage"),
    (
        "Environment",
        {"spec": {"routingKey": {"header": "a", "baggage": "b"}}},
        'spec.routingKey: Invalid value: "object": names more than one carrier, or none; write one of header',
    ),
    ("Environment", {"spec": {"members": [""]}}, "spec.members[0] in body should be at least 1 chars long"),
    (
        "EgressPolicy",
        {
            "spec": {
                "default": "Deny",
                "rules": [
                    {"action": "Deny", "cidrs": ["10.9.0.0/16"], "reason": "that is production"},
                    {"action": "Allow", "hosts": ["*.example.com", "db.prod"], "ports": [443, "8000-8100"]},
                    {"action": "Allow", "owners": ["alice"], "environments": ["demo"]},
                ],
            }
        },
        "",
    ),
    ("EgressPolicy", {"spec": {"rules": [{}]}}, "spec.rules[0].action: Required value"),
    ("EgressPolicy", {"spec": {"default": "allow"}}, 'spec.default: Unsupported value: "allow"'),
    (
        "EgressPolicy",
        {"spec": {"rules": [{"action": "Allow", "hosts": ["a"], "cidrs": ["10.0.0.0/8"]}]}},
        'spec.rules[0]: Invalid value: "object": has hosts and cidrs: a rule judges the name asked for or the addresses, '
        "not both; make two rules of it",
    ),
    (
        "EgressPolicy",
        {"spec": {"rules": [{"action": "Allow", "hosts": ["a b"]}]}},
        "spec.rules[0].hosts[0]: Invalid value",
    ),
    ("EgressPolicy", {"spec": {"rules": [{"action": "Allow", "ports": [0]}]}}, "is out of range; use 1 to 65535"),
    ("EgressPolicy", {"spec": {"rules": [{"action": "Allow", "ports": ["x"]}]}}, "write it like 443 or 8000-8100"),
    ("EgressPolicy", {"metadata": {"name": "other"}, "spec": {}}, "metadata.name is not default; call it default"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), OTHERS, ids=[f"{kind}-{str(f)[:50]}" for kind, f, _ in OTHERS])
@pytest.mark.usefixtures("definitions")
async def test_environments_and_egress_policies(api_server, namespace, kind, fields, message):
    document = {"apiVersion": "hairpin.dev/v1alpha1", "kind": kind, "metadata": {"name": "default"}, **fields}
    if not message:
        assert (await api_server.client.create(document, namespace=namespace, dry_run=True))["kind"] == kind
        return
    with pytest.raises(ApiError) as refused:
        await api_server.client.create(document, namespace=namespace, dry_run=True)
    assert message in refused.value.message
