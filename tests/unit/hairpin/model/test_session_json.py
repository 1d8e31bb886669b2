"""Sessions in JSON, and the schema, which takes just what the reader takes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import extend

from hairpin.errors import InvalidFieldError
from hairpin.model.environment import Carrier, Environment, RoutingKey
from hairpin.model.environment_json import (
    environment_from_json,
    environment_to_json,
)
from hairpin.model.match_json import match_from_json, match_to_json
from hairpin.model.routing_key_json import routing_key_from_json
from hairpin.model.schema import match_json_schema, session_json_schema
from hairpin.model.session import AgentAddress, Condition, Mode, Phase, Session, SessionSpec, SessionStatus
from hairpin.model.session_json import session_from_json, session_to_json, spec_from_json, spec_to_json
from hairpin.model.target import KINDS, Target
from hairpin.model.version import UNSTATED, Version
from tests.unit.hairpin.model import strategies

STEAL = {"target": {"name": "checkout"}, "environment": "alice"}

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)
ports = st.integers(1, 65535)
port_names = st.from_regex(r"[a-z]{1,4}(-[a-z0-9]{1,3})?", fullmatch=True)
texts = st.text(alphabet="abc -é\n", max_size=8)
pems = st.sampled_from(["", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"])
moments = st.datetimes(timezones=st.just(UTC))
environments = st.text(alphabet="abc.-_/9", min_size=1, max_size=8)
targets = st.builds(
    Target, name=labels, kind=st.sampled_from(KINDS), namespace=labels, port=st.none() | ports | port_names
)
claims = st.one_of(
    st.fixed_dictionaries({"environment": environments}, optional={"match": strategies.matches()}),
    st.fixed_dictionaries({"match": strategies.matches()}),
)
versions = st.just(UNSTATED) | st.builds(Version, labels, st.integers(1, 9999))
common = {
    "certificate_request": pems,
    "local_port": st.none() | ports,
    "lease_seconds": st.integers(1, 3600),
    "client": versions,
}
specs = st.one_of(
    st.builds(lambda claim, **rest: SessionSpec(**claim, **rest), claims, target=targets, **common),
    st.builds(SessionSpec, mode=st.just(Mode.EGRESS), environment=st.none() | environments, **common),
)
statuses = st.builds(
    SessionStatus,
    phase=st.sampled_from(Phase),
    certificate=pems,
    certificate_authority=pems,
    agent_identity=texts,
    agents=st.lists(
        st.builds(AgentAddress, name=labels, host=texts, tunnel_port=ports, egress_port=ports, version=texts),
        max_size=2,
    ).map(tuple),
    tunnels=st.lists(labels, max_size=2).map(tuple),
    last_seen=st.none() | moments,
    resolved_target=texts,
    routing_key=st.none() | st.builds(RoutingKey, st.sampled_from(Carrier), st.sampled_from(["x-env", "env"])),
    conditions=st.lists(st.builds(Condition, type=texts, message=texts), max_size=2).map(tuple),
    server=versions,
)
sessions = st.builds(Session, name=labels, namespace=labels, owner=texts, created=moments, spec=specs, status=statuses)


def _pattern(_validator, pattern, instance, _schema):
    # JSON Schema's patterns are ECMA-262's, whose $ is the very end; Python's also stands before a last line break.
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


Validator = extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
SESSION = Validator(session_json_schema())
MATCH = Validator(match_json_schema())


def reads(read, document) -> InvalidFieldError | None:
    try:
        read(document)
    except InvalidFieldError as error:
        return error
    return None


BEYOND_SCHEMA = ("nested too deep", "conditions and connectives", "time that there is not")


def is_beyond_schema(error: InvalidFieldError) -> bool:
    return error.field.endswith(".regex") or any(words in error.problem for words in BEYOND_SCHEMA)


def test_the_schemas_are_schemas():
    Validator.check_schema(session_json_schema())
    Validator.check_schema(match_json_schema())


@settings(deadline=None)
@given(sessions)
def test_what_is_written_is_read_again_and_in_the_schema(session):
    document = json.loads(json.dumps(session_to_json(session)))
    assert session_from_json(document) == session
    SESSION.validate(document)


@given(specs)
def test_a_spec_alone_is_enough(spec):
    document = {"spec": spec_to_json(spec)}
    assert session_from_json(document).spec == spec
    assert spec_from_json(document["spec"]) == spec
    SESSION.validate(document)


# Documents near those that are right: whatever the reader says, the schema says.

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(
        ["", "a\n", " a", "a,b", "steal", "mirror", "egress", "Pending", "x" * 70, "GET", "/", "80", "a.b", "A"]
    ),
    st.just([]),
    st.just({}),
    st.just({"method": "GET"}),
    st.lists(st.just({"method": "PUT"}), max_size=2),
)
KEYS = [
    "name",
    "key",
    "kind",
    "port",
    "mode",
    "match",
    "exact",
    "prefix",
    "regex",
    "present",
    "and",
    "not",
    "header",
    "x",
    "status",
]

TWEAKS = [
    lambda text: f"{text}\n",
    lambda text: f" {text}",
    lambda text: text + ",",
    lambda text: text + ";",
    lambda text: text + "&",
    lambda text: text + "#",
    lambda text: text + "?",
    lambda text: text + "é",
    lambda text: text + "\x7f",
    lambda text: text + " a",
    lambda text: "/" + text,
    lambda text: ":" + text,
    lambda text: "x-hairpin-" + text,
    lambda text: text[1:],
    lambda text: text[:-1],
    str.upper,
    str.lower,
    lambda text: text * 300,
]


def places(document, path=()):
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


def changed(document, path, change):
    if not path:
        return change(document)
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(document[path[0]], path[1:], change)
    return copy


@st.composite
def spoiled(draw, documents):
    document = draw(documents)
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["tweak", "tweak", "tweak", "replace", "add", "drop", "uproot"]))
        containers = kind in ("add", "drop", "uproot")
        paths = [path for path in places(document) if isinstance(at(document, path), dict | list) is containers]
        path = draw(st.sampled_from(paths or [()]))
        value, key, tweak = draw(junk), draw(st.sampled_from(KEYS)), draw(st.sampled_from(TWEAKS))

        def change(node, kind=kind, value=value, key=key, tweak=tweak):
            if kind == "tweak" and isinstance(node, str):
                return tweak(node)
            if kind == "tweak" and isinstance(node, int):
                return node * 3601
            if isinstance(node, dict) and kind == "add":
                return {**node, key: value}
            if isinstance(node, dict) and kind == "drop" and node:
                return dict(list(node.items())[1:])
            return value

        document = changed(document, path, change)
    return document


@settings(deadline=None, max_examples=300)
@given(spoiled(sessions.map(session_to_json)))
def test_reader_and_schema_agree_on_sessions(document):
    error = reads(session_from_json, document)
    if error is None or not is_beyond_schema(error):
        assert SESSION.is_valid(document) is (error is None), error


@settings(deadline=None, max_examples=300)
@given(spoiled(strategies.matches().map(match_to_json)))
def test_reader_and_schema_agree_on_matches(document):
    error = reads(match_from_json, document)
    if error is None or not is_beyond_schema(error):
        assert MATCH.is_valid(document) is (error is None), error


@pytest.mark.parametrize(
    ("spec", "field", "problem", "remedy"),
    [
        ({}, "spec.target", "is missing", "name a target, or use mode egress"),
        ({"target": {"name": "a"}}, "spec.environment", "is missing", "everyone's requests"),
        ({"mode": "egress", "target": {"name": "a"}}, "spec.target", "no meaning in mode egress", "use mode steal"),
        ({"mode": "egress", "match": {"method": "GET"}}, "spec.match", "no meaning in mode egress", "leave it out"),
        ({"mode": "mirror"}, "spec.target", "is missing", "name a target, or use mode egress"),
        ({"mode": "mirror", "target": {"name": "a"}}, "spec.environment", "is missing", "everyone's requests"),
        (STEAL | {"mode": "stael"}, "spec.mode", "is not known", "did you mean 'steal'?"),
        (STEAL | {"leaseSeconds": 0}, "spec.leaseSeconds", "is out of range", "use 1 to 3600"),
        (STEAL | {"leaseSeconds": 3601}, "spec.leaseSeconds", "is out of range", "use 1 to 3600"),
        (STEAL | {"leaseSeconds": True}, "spec.leaseSeconds", "is not a whole number", "use 1 to 3600"),
        (STEAL | {"localPort": 65536}, "spec.localPort", "is out of range", "use 1 to 65535"),
        (STEAL | {"localPort": "80"}, "spec.localPort", "is not a whole number", "use 1 to 65535"),
        (STEAL | {"local_port": 80}, "spec.local_port", "in no known field", "did you mean 'localPort'?"),
        (STEAL | {"environment": "a b"}, "spec.environment", "is not an environment's name", "blanks"),
        (STEAL | {"match": {"haeder": {}}}, "spec.match.haeder", "is no known condition", "did you mean 'header'?"),
        (STEAL | {"target": "checkout"}, "spec.target", "is not a mapping", "kind, name, namespace, port"),
        (STEAL | {"target": {"name": "Check"}}, "spec.target.name", "is not a name", "use a-z"),
        (STEAL | {"target": {"name": "a.b"}}, "spec.target.name", "is not a DNS label", "use a-z"),
        (STEAL | {"target": {"name": "a", "kind": "svc"}}, "spec.target.kind", "is not known", "service"),
        (STEAL | {"target": {"name": "a", "port": "80"}}, "spec.target.port", "is a number in quotes", "without"),
        (STEAL | {"target": {"name": "a", "port": 0}}, "spec.target.port", "is out of range", "use 1 to 65535"),
        (STEAL | {"certificateRequest": "é" * 100}, "spec.certificateRequest", "is not a text in PEM", "whole"),
    ],
)
def test_what_is_refused_names_field_value_and_remedy(spec, field, problem, remedy):
    with pytest.raises(InvalidFieldError) as error:
        session_from_json({"spec": spec})
    assert error.value.field == field
    assert problem in error.value.problem
    assert remedy in error.value.remedy
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("document", "field", "problem"),
    [
        ([], "", "is not a mapping"),
        ({}, "spec", "is missing"),
        ({"spec": STEAL, "kind": "Sesion"}, "kind", "is not known"),
        ({"spec": STEAL, "apiVersion": "hairpin.dev/v2"}, "apiVersion", "is not known"),
        ({"spec": STEAL, "stauts": {}}, "stauts", "in no known field"),
        ({"spec": STEAL, "metadata": {"name": "A"}}, "metadata.name", "is not a DNS label"),
        ({"spec": STEAL, "metadata": {"creationTimestamp": "now"}}, "metadata.creationTimestamp", "RFC 3339"),
        ({"spec": STEAL, "status": {"lastSeen": "2026-02-30T00:00:00Z"}}, "status.lastSeen", "that there is not"),
        ({"spec": STEAL, "status": {"agents": [{"name": "a"}]}}, "status.agents[0].tunnelPort", "is missing"),
    ],
)
def test_the_rest_of_a_session_is_read_as_strictly(document, field, problem):
    with pytest.raises(InvalidFieldError) as error:
        session_from_json(document)
    assert error.value.field == field
    assert problem in error.value.problem


def test_kubernetes_own_metadata_is_passed_over():
    session = session_from_json({"metadata": {"name": "s", "uid": "1", "labels": {}}, "spec": STEAL})
    assert session.name == "s"


def test_times_are_read_in_any_zone_and_written_in_utc():
    document = {"metadata": {"creationTimestamp": "2026-01-31T13:00:00+01:00"}, "spec": STEAL}
    session = session_from_json(document)
    assert session.created == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert session_to_json(session)["metadata"]["creationTimestamp"] == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize("carrier", Carrier)
def test_environments(carrier):
    environment = Environment("alice", RoutingKey(carrier, "env"))
    document = {"name": "alice", "routingKey": {carrier.value: "env"}}
    assert environment_to_json(environment) == document
    assert environment_from_json(document) == environment


def test_an_environment_has_the_usual_routing_key():
    assert environment_from_json({"name": "alice"}) == Environment("alice")


@pytest.mark.parametrize(
    ("document", "field", "problem"),
    [
        ({}, "routingKey", "names nothing"),
        ({"header": "a", "baggage": "b"}, "routingKey", "are more than one"),
        ({"heder": "a"}, "routingKey.heder", "in no known field"),
        ({"header": "x-hairpin-session"}, "routingKey.header", "hairpin's own"),
    ],
)
def test_wrong_routing_keys(document, field, problem):
    with pytest.raises(InvalidFieldError) as error:
        routing_key_from_json(document)
    assert error.value.field == field
    assert problem in error.value.problem
