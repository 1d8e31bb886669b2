"""Envoy 1.40's own words in, what a user reads out."""

from __future__ import annotations

import logging
import os

import pytest

from hairpin.envoy.failure import (
    RefusedError,
    exit_in_words,
    log_record,
    not_ready,
    parse_line,
    port_holder,
    refusal,
    start_failure,
)
from hairpin.errors import HairpinError, UnavailableError
from tests.support.envoy import listening

CRITICAL = "[critical][main] "
DUMP = r"goo.gle/debugproto    \nstatic_resources {\n  clusters {\n    type: STATIC  inline_string: \"-----BEGIN PRIVATE KEY-----\"\n  }\n}\n: "
CONSTRAINT = (
    "Proto constraint validation failed (BootstrapValidationError.StaticResources: embedded message failed validation | "
    "caused by StaticResourcesValidationError.Clusters[0]: embedded message failed validation | caused by "
    "ClusterValidationError.Name: value length must be at least 1 characters)"
)

REASONS = {
    "unknown field": (
        r"error initializing configuration \'b.json\': Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason INVALID_ARGUMENT: invalid JSON in envoy.config.bootstrap.v3.Bootstrap @  static_resources.clusters[0]: message   envoy.config.cluster.v3.Cluster,   near   1:54 (offset 53): no  such field: \'typee\') has unknown fields",
        "invalid JSON in envoy.config.bootstrap.v3.Bootstrap @ static_resources.clusters[0]: message envoy.config.cluster.v3.Cluster, near 1:54 (offset 53): no such field: 'typee'",
    ),
    "plain": (
        r"error initializing configuration \'b.json\': malformed IP address: nope. Consider setting resolver_name or setting cluster type to \'STRICT_DNS\' or \'LOGICAL_DNS\'",
        "malformed IP address: nope. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'",
    ),
    "constraint, when validating": (
        rf"error initializing configuration \'b.json\': {DUMP}{CONSTRAINT}",
        "StaticResources.Clusters[0].Name: value length must be at least 1 characters",
    ),
    "constraint, when serving": (
        rf"error `{DUMP}{CONSTRAINT}` initializing config \'goo.gle/debugonly    \n  b.json\'",
        "StaticResources.Clusters[0].Name: value length must be at least 1 characters",
    ),
    "unknown type": (
        r"error initializing configuration \'b.json\': Unable to parse JSON as proto (INVALID_ARGUMENT: could not find @type \'type.googleapis.com/nope\'): {\"key\":\"-----BEGIN PRIVATE KEY-----\"}\n",
        "Unable to parse JSON as proto (INVALID_ARGUMENT: could not find @type 'type.googleapis.com/nope')",
    ),
    "regular expression": (
        r"error `missing ]: [` initializing config \'goo.gle/debugproto  \n  b.json\'",
        "missing ]: [",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_the_reason_without_wrapping_and_without_the_configuration(case):
    message, expected = REASONS[case]
    lines = ["[warning][main] something else", CRITICAL + message, "the same again, not as a log line"]
    assert refusal(lines) == expected


def test_a_reason_has_bounded_length():
    assert len(refusal([CRITICAL + "x" * 5000]) or "") == 600


def test_no_critical_line_no_reason():
    assert refusal(["[error][main] bad", "", "noise"]) is None


def test_a_refusal_keeps_the_reason_apart():
    error = start_failure("the laptop's Envoy", 1, [CRITICAL + REASONS["regular expression"][0]])
    assert isinstance(error, RefusedError)
    assert (str(error), error.reason) == (
        "the laptop's Envoy: Envoy refuses the configuration: missing ]: [",
        "missing ]: [",
    )


def test_a_taken_port_names_address_and_holder():
    with listening() as port:
        line = rf"{CRITICAL}error `cannot bind \'127.0.0.1:{port}\': Address already in use` initializing config \'x\'"
        message = str(start_failure("checkout's sidecar", 1, [line]))
        assert message.startswith(f"checkout's sidecar: can't listen on 127.0.0.1:{port}: the port is taken by ")
        assert message.endswith("end that one, or choose another port")
        assert f"(pid {os.getpid()})" in message
    assert port_holder(port) is None


def test_an_address_of_another_machine():
    line = rf"{CRITICAL}error `cannot bind \'10.9.9.9:80\': Cannot assign requested address` initializing config \'x\'"
    message = "x: can't listen on 10.9.9.9:80: cannot assign requested address; choose another address"
    assert str(start_failure("x", 1, [line])) == message


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_other_ends(code, words):
    assert exit_in_words(code) == words
    said = str(start_failure("x", code, ["[info][main] a", "b"]))
    assert said == f"x: Envoy ended with {words} before it was ready; it said: [info][main] a b"
    assert type(start_failure("x", code, [])) is HairpinError
    assert str(start_failure("x", code, [])).endswith("it said: nothing")


def test_not_ready_says_what_is_missing():
    assert isinstance(not_ready("x", 45, "PRE_INITIALIZING"), UnavailableError)
    assert str(not_ready("x", 45.0, "PRE_INITIALIZING")) == (
        "x: Envoy runs but has no configuration after 45 s (PRE_INITIALIZING): its control plane does not answer"
    )
    assert str(not_ready("x", 0.5, None)) == "x: Envoy does not answer after 0.5 s"


def test_log_lines_are_unescaped():
    assert parse_line(r"[warning][config] a \'b\' \"c\" \\ \n\t\303\251") == ("warning", "a 'b' \"c\" \\ \n\té")
    assert parse_line("anything") == ("debug", "anything")


def test_only_what_says_something_is_logged():
    noise = (
        "[warning][main] There is no configured limit to the number of allowed active downstream connections. Configure"
    )
    assert log_record(noise)[0] == logging.DEBUG
    assert log_record("[warning][main] caught ENVOY_SIGTERM")[0] == logging.DEBUG
    assert log_record("[warning][config] gRPC config stream closed: 14") == (
        logging.WARNING,
        "gRPC config stream closed: 14",
    )
    assert log_record("[critical][assert] failure")[0] == logging.ERROR
    assert (
        log_record("[critical][x] " + REASONS["constraint, when serving"][0])[1]
        == REASONS["constraint, when serving"][1]
    )
