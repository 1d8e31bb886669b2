import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Action, EgressRule, Ports, SessionRules
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.match_text import parse_match
from hairpin.model.session import AgentAddress, Mode, Phase, Session, SessionSpec, SessionStatus
from hairpin.model.target import Target
from local_proxy.laptop import EgressSeen
from local_proxy.messages import calls_text, claim_text, egress_text, end_text, policy_text, request_text, sighting_text
from local_proxy.ports import Listener, Sighting
from local_proxy.run import target_port
from local_proxy.session_store import RequestSeen
from local_proxy.sessions import age, requests_text, stop_sessions, table

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AGENTS = tuple(AgentAddress(name=f"agent-{n}", host="127.0.0.1", tunnel_port=1, egress_port=2) for n in range(2))
SESSION = Session(
    name="alice-1",
    namespace="default",
    owner="alice",
    created=NOW - timedelta(minutes=3),
    spec=SessionSpec(target=Target("checkout"), environment="alice", match=parse_match("path ^/api"), local_port=40123),
    status=SessionStatus(
        phase=Phase.ACTIVE, agents=AGENTS, tunnels=("agent-0",), resolved_target="default/checkout:80"
    ),
)
EGRESS = dataclasses.replace(SESSION, name="bob-1", spec=SessionSpec(mode=Mode.EGRESS))


def listener(port, host="127.0.0.1", process="python"):
    return Listener(host=host, port=port, bound=host, process=process)


def test_sessions_are_a_table_of_aligned_columns():
    lines = table([SESSION, EGRESS], RoutingKey(), NOW).splitlines()
    assert [line.split("   ")[0].strip() for line in lines] == ["NAME", "alice-1", "bob-1"]
    column = lines[0].index("REQUESTS")
    assert lines[1][column:].startswith("header x-env=alice and path ^/api")
    assert lines[2][column:].startswith("-")
    assert lines[1].endswith("steal    Active   40123   1 of 2   3m")
    assert lines[2].endswith("egress   Active   -       1 of 2   3m")


def test_no_sessions_are_told_in_words():
    assert table([], RoutingKey(), NOW) == "no sessions: all requests are answered by the cluster\n"


@pytest.mark.parametrize(("names", "text"), [([], "NAME is missing; name a session"), ([""], "NAME is empty; name a")])
def test_ending_nothing_is_refused(names, text):
    with pytest.raises(InvalidFieldError, match=f"^{text}"):
        stop_sessions(None, names, every=False)


def test_the_meshs_routing_key_is_in_the_requests_text():
    assert requests_text(SESSION, RoutingKey(Carrier.BAGGAGE, "env")).startswith("baggage env=alice")


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(hours=2), "2h"),
        (timedelta(days=3), "3d"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(time, text):
    assert age(time) == text


def test_what_is_claimed_is_told():
    assert claim_text(SESSION, "header x-env=alice") == (
        "session alice-1: requests of default/checkout:80 where header x-env=alice"
    )
    assert claim_text(EGRESS, "-") == "session bob-1: takes no requests, calls into the mesh"


@pytest.mark.parametrize(
    ("sighting", "port", "took", "text"),
    [
        (Sighting(listener(80)), None, False, "python at 127.0.0.1:80 takes the requests"),
        (Sighting(listener(80, "::1", "")), None, False, "[::1]:80 takes the requests"),
        (
            Sighting(listener(80), (listener(90), listener(91))),
            None,
            False,
            "python at 127.0.0.1:80 takes the requests; it also listens on 90 and 91: --port 90 would choose that",
        ),
        (Sighting(None), None, True, "nothing listens any more: the cluster answers until it comes back"),
        (Sighting(None), None, False, "nothing listens yet: the cluster answers"),
        (
            Sighting(None, (listener(90),)),
            80,
            False,
            "nothing listens on port 80 yet: the cluster answers (the command listens on 90: did you mean --port 90?)",
        ),
    ],
)
def test_what_listens_is_told(sighting, port, took, text):
    assert sighting_text(sighting, port=port, took=took) == text


def test_requests_are_told_in_a_line_each():
    seen = RequestSeen(
        method="GET", authority="checkout", path="/a?b", status=200, duration_ms=7, served="via_upstream"
    )
    assert request_text(seen) == "-> GET checkout/a?b 200 7 ms"
    out = EgressSeen(method="CONNECT", authority="inventory:443", status=200, duration_ms=9, refused="")
    assert egress_text(out) == "<- CONNECT inventory:443 200 9 ms"
    refused = dataclasses.replace(out, status=403, refused="link-local")
    assert egress_text(refused) == "<- CONNECT inventory:443 403 9 ms (refused: link-local)"


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Invalid_argument}",
            ": no tunnel",
        ),
        (
            "upstream_reset_before_response_started{connection_termination}",
            ": the process refused or closed the connection",
        ),
        ("upstream_reset_before_response_started{protocol_error}", ": what the process answered is no HTTP"),
        ("upstream_response_timeout", ": no answer in time"),
        ("downstream_remote_disconnect", ": the caller went away"),
        ("of_a_newer_envoy{why}", " [of_a_newer_envoy{why}]"),
        ("", ""),
    ],
)
def test_why_a_request_was_not_answered_here_is_told_in_words(served, words):
    seen = RequestSeen(method="GET", authority="checkout", path="/", status=0, duration_ms=7, served=served)
    assert request_text(seen) == f"-> GET checkout/ - 7 ms (not answered here{words})"


def test_an_egress_policy_is_told_in_one_line():
    assert policy_text(SessionRules()) == ""
    told = "calls go where the namespace's EgressPolicy lets them: "
    assert policy_text(SessionRules(default=Action.DENY)) == f"{told}else Deny"
    deny = EgressRule(action=Action.DENY, hosts=("*.prod",), reason="use staging", number=2)
    allow = EgressRule(action=Action.ALLOW, ports=(Ports(443, 443),), number=3)
    text = policy_text(SessionRules(rules=(deny, allow)))
    assert text == f"{told}rule 2 (Deny *.prod), use staging; rule 3 (Allow everything, ports 443); else Allow"
    assert policy_text(SessionRules(rules=(allow,) * 10)).endswith("; 2 more rules; else Allow")


def test_a_process_that_runs_already_is_told_its_way_into_the_mesh():
    assert calls_text(9000, command=True, kept=False) == "calls into the mesh: HTTP proxy at 127.0.0.1:9000"
    own = "; for its own calls into the mesh give the process http_proxy=http://127.0.0.1:9000"
    assert calls_text(9000, command=False, kept=False).endswith(f"{own} (--egress-port keeps the port)")
    assert calls_text(9000, command=False, kept=True).endswith(own)


@pytest.mark.parametrize(
    ("code", "killed", "idle", "text"),
    [
        (0, False, False, ""),
        (7, False, False, "python ended with 7"),
        (143, False, False, "python ended with 143"),
        (143, True, False, "python was ended by SIGTERM"),
        (128 + 40, True, False, "python was ended by signal 40"),
        (0, False, True, "python ended and never listened: nothing was taken"),
        (7, False, True, "python ended with 7 and never listened: nothing was taken"),
    ],
)
def test_how_the_command_ended_is_told_if_it_matters(code, killed, idle, text):
    assert end_text("python", code, killed=killed, idle=idle) == text


@pytest.mark.parametrize(
    ("resolved", "port"), [("default/checkout:8080", 8080), ("", None), ("default/checkout", None)]
)
def test_the_targets_port_number_is_read(resolved, port):
    assert target_port(resolved) == port
