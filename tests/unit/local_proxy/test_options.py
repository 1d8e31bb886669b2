import argparse
import socket

import pytest

from hairpin.api import ServerRefusalError
from hairpin.errors import InvalidFieldError
from hairpin.model.match import Header, StringKind, StringPredicate
from hairpin.model.session import Mode
from hairpin.model.target import Target
from local_proxy.commands.run import command
from local_proxy.options import egress_ports, in_flags, run_options


def options(text, *run):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    namespace = parser.parse_args(text.split() if isinstance(text, str) else text)
    namespace.command = list(run)
    return run_options(namespace)


def test_what_is_asked_for_is_what_is_claimed():
    asked = options("--env alice -t checkout:8080 -n shop --lease 2m --local db --local cache --port 80", "app", "-v")
    assert asked.command == ("app", "-v")
    assert (asked.port, [rule.source for rule in asked.rules]) == (80, ["--local db", "--local cache"])
    spec = asked.spec("CSR")
    assert spec.target == Target("checkout", namespace="shop", port=8080)
    assert (spec.environment, spec.lease_seconds, spec.certificate_request) == ("alice", 120, "CSR")
    assert spec.local_port is None


def test_a_match_is_read():
    asked = options(["-t", "checkout", "--match", "header x-user=42"], "app")
    assert asked.match == Header("x-user", StringPredicate(StringKind.EXACT, "42"))


def test_the_environments_header_is_added_where_that_is_asked_for():
    assert options("--mode egress --env alice --inject-env", "app").inject_env
    assert not options("--mode egress --env alice", "app").inject_env


def test_egress_needs_nothing_but_a_command():
    assert options("--mode egress", "pytest").mode is Mode.EGRESS


@pytest.mark.parametrize(
    ("flags", "run", "message"),
    [
        ("--env alice", ["app"], "--target names nothing whose requests to take; write --target NAME"),
        ("-t checkout", ["app"], "--env leaves open which requests to take; write --env NAME"),
        ("--env alice -t checkout", [], "COMMAND is missing; put it after --"),
        (
            "--env alice -t checkout --port http",
            ["app"],
            "--port: 'http' is no port number; write a number from 1 to 65535",
        ),
        ("--env alice -t checkout --port 0", ["app"], "--port: '0' is no port number"),
        ("--env alice -t checkout --port 65536", ["app"], "--port: '65536' is no port number"),
        ("--env alice -t checkout --egress-port -1", ["app"], "--egress-port: '-1' is no port number"),
        ("--env alice -t checkout --egress-port 8080 --port 8080", ["app"], "--egress-port: 8080 is --port too"),
        ("--env alice -t checkout --lease soon", ["app"], "--lease: 'soon' is no time .* such as 10 or 2m"),
        (
            "--env alice -t checkout --intercept maybe",
            ["app"],
            "--intercept: 'maybe' is no choice; choose one of auto, on",
        ),
        ("--mode egress --connect late", ["app"], "--connect: 'late' is no choice; choose one of at-once, exact"),
        (
            "--mode egress --env alice --connect exact --inject-env",
            ["app"],
            "--connect: 'exact' does not go with --inject-env",
        ),
        (
            "--mode egress --connect exact --intercept off",
            ["app"],
            "--connect: 'exact' means nothing with --intercept off",
        ),
        (
            "--env alice -t checkout --if-killed hang",
            ["app"],
            "--if-killed: 'hang' is no choice; choose one of end, keep",
        ),
        ("--env alice -t checkout --udp drop", ["app"], "--udp: 'drop' is no choice; choose one of refuse, pass"),
        (
            "--mode egress --inject-env",
            ["app"],
            "--inject-env has no environment whose header to add; write --env NAME, or leave it out",
        ),
        ("--env alice -t checkout --lease 2h", ["app"], "--lease: '2h' is no time"),
        (
            "--env alice -t checkout --mode steel",
            ["app"],
            "--mode: 'steel' is no choice; choose one of steal, mirror, egress",
        ),
        ("-t checkout --mode mirror", ["app"], "--env leaves open which requests to take"),
        ("--mode egress -t checkout", ["app"], "--target: 'checkout' has no meaning in mode egress"),
        ("--mode egress --port 80", ["app"], "--port: '80' has no meaning in mode egress"),
        (
            "--env alice -t checkout --local http://db:5432",
            ["app"],
            "--local: 'http://db:5432' is no host; write a host .* without scheme or user",
        ),
        ("--env alice -t servce/checkout", ["app"], "^--target: 'servce/checkout' "),
        ("--env alice -t checkout:99999", ["app"], "--target: 'checkout:99999' "),
    ],
)
def test_a_wrong_flag_says_what_would_be_right(flags, run, message):
    with pytest.raises(InvalidFieldError, match=message):
        options(flags, *run)


@pytest.mark.parametrize("flag", ["--target", "--env", "--match", "--namespace", "--config"])
def test_an_empty_value_is_not_the_same_as_none(flag):
    with pytest.raises(InvalidFieldError, match=f"^{flag} is empty; write a value, or leave the flag out"):
        options(["--env", "alice", "-t", "checkout", flag, ""], "app")


@pytest.mark.parametrize(
    ("flags", "run"), [("--env alice", ["app"]), ("-t checkout", ["app"]), ("--env alice -t checkout", [])]
)
def test_what_is_missing_is_not_quoted(flags, run):
    with pytest.raises(InvalidFieldError) as caught:
        options(flags, *run)
    assert "None" not in str(caught.value)
    assert "''" not in str(caught.value)


def test_a_match_that_cannot_be_read_names_the_flag():
    with pytest.raises(InvalidFieldError, match=r"^--match"):
        options(["-t", "checkout", "--match", "header x-user = = 42"], "app")


def test_what_the_control_plane_refuses_is_said_of_the_flag():
    refusal = ServerRefusalError("spec.target.port: 'x' is not a port of it; checkout has 80 (http), spec.match aside")
    assert str(in_flags(refusal)) == "--target: 'x' is not a port of it; checkout has 80 (http), spec.match aside"
    wrong = InvalidFieldError("spec.environment", ",", "can't be a name", "use letters")
    assert str(in_flags(wrong)) == "--env: ',' can't be a name; use letters"
    assert str(in_flags(ServerRefusalError("the field is wrong"))) == "the field is wrong"


def test_a_taken_egress_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InvalidFieldError, match=rf"--egress-port: {port} can't be listened on .* leave the flag out"
        ):
            egress_ports(port)


def test_free_egress_ports_are_two():
    first, second = egress_ports(None)
    assert first != second
    assert egress_ports(second)[0] == second != egress_ports(second)[1]
