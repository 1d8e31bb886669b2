import stat

import pytest

from hairpin.api import (
    Developer,
    developers_directory,
    error_of,
    find_developer,
    read_developer,
    state_directory,
    status_of,
    write_developer,
)
from hairpin.errors import ConflictError, HairpinError, InvalidFieldError, NotFoundError, UnavailableError
from hairpin.model.environment import Carrier, RoutingKey

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
ALICE = Developer(
    server="https://127.0.0.1:15443",
    certificate_authority=PEM,
    token="secret",
    user="alice",
    routing_key=RoutingKey(Carrier.BAGGAGE, "env"),
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "developers" / "alice.yaml"
    write_developer(path, ALICE)
    return path


def test_what_is_written_is_read(file):
    assert read_developer(file) == ALICE


def test_only_its_owner_may_read_it(file):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(file, mode):
    file.chmod(mode)
    with pytest.raises(HairpinError, match=rf"its mode is {mode:04o}\): `chmod 600 {file}`"):
        read_developer(file)


def test_the_token_is_not_shown():
    assert "secret" not in repr(ALICE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("server: http://127.0.0.1:1", r"server: 'http://127.0.0.1:1' is no https URL; write https://HOST:PORT"),
        ("server:", r"server is no text"),
        ("token: ''", r"token: '' is no text"),
        ("certificateAuthorityData: nonsense", r"certificateAuthorityData: 'nonsense' is no certificate in PEM"),
        ("routingKey: {carrier: cookie, name: x}", r"routingKey: .* write \{carrier: header\|baggage\|tracestate"),
        ("routingkey: {}", r"routingkey: \{\} is unknown"),
    ],
)
def test_a_wrong_field_is_named(file, change, message):
    name = change.partition(":")[0]
    lines = file.read_text().splitlines(keepends=True)
    kept, inside = [], False
    for line in lines:
        inside = line.startswith(f"{name}:") or (inside and line.startswith(" ")) or (inside and line == "\n")
        if not inside:
            kept.append(line)
    file.write_text("".join(kept) + change + "\n")
    with pytest.raises(InvalidFieldError, match=message):
        read_developer(file)


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "is no mapping"), ("a: [", "is not YAML"), ("", "is no mapping")]
)
def test_a_file_that_is_something_else_is_refused(file, content, message):
    file.write_text(content)
    with pytest.raises(HairpinError, match=message):
        read_developer(file)


def test_the_routing_key_is_the_header_by_default(file):
    file.write_text(file.read_text().partition("routingKey")[0])
    assert read_developer(file).routing_key == RoutingKey(Carrier.HEADER, "x-env")


def test_the_flag_wins_over_the_variable_and_that_over_the_meshs_place(tmp_path, file):
    environ = {"XDG_STATE_HOME": str(tmp_path), "USER": "alice"}
    place = developers_directory(environ) / "alice.yaml"
    write_developer(place, ALICE)
    other = tmp_path / "other.yaml"
    other.touch()
    assert find_developer(None, environ) == place
    assert find_developer(None, environ | {"HAIRPIN_CONFIG": str(file)}) == file
    assert find_developer(str(other), environ | {"HAIRPIN_CONFIG": str(file)}) == other


def test_without_a_mesh_the_message_says_how_to_get_one(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path), "USER": "alice"}
    with pytest.raises(NotFoundError, match=r"^no mesh found .* start one with `hairpin mesh up`, or name its file"):
        find_developer(None, environ)


def test_files_of_other_developers_are_suggested(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path), "USER": "carol"}
    write_developer(developers_directory(environ) / "alice.yaml", ALICE)
    with pytest.raises(NotFoundError, match=r"no file carol.yaml for you .* only alice.yaml: name one with --config"):
        find_developer(None, environ)


@pytest.mark.parametrize(
    ("config", "environ", "source"), [("/no/a", {}, "--config"), (None, {"HAIRPIN_CONFIG": "/no/a"}, "HAIRPIN_CONFIG")]
)
def test_a_named_file_that_is_not_there_names_who_named_it(config, environ, source):
    with pytest.raises(NotFoundError, match=f"^{source}: there is no file /no/a"):
        find_developer(config, environ)


def test_a_relative_state_directory_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_directory({"XDG_STATE_HOME": "here"}) == tmp_path / ".local" / "state" / "hairpin"


@pytest.mark.parametrize(
    "error",
    [
        InvalidFieldError("spec.match", "x", "is wrong", "write y"),
        NotFoundError("no service 'chekout'"),
        ConflictError("bob holds these requests"),
        UnavailableError("no agent is up"),
        HairpinError("other"),
    ],
)
def test_errors_survive_the_way_to_the_client(error):
    code, body = status_of(error)
    assert body["code"] == code
    again = error_of(code, body)
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_field_that_the_server_found_wrong_is_named_also_without_its_parts():
    error = error_of(422, {"message": "is no port", "details": {"field": "spec.localPort"}})
    assert str(error) == "spec.localPort: is no port"
    assert error.exit_code == InvalidFieldError.exit_code


@pytest.mark.parametrize("body", [None, [], {}, {"message": ""}])
def test_an_answer_without_a_message_is_told_by_its_status(body):
    assert str(error_of(502, body)) == "the control plane answered 502"
