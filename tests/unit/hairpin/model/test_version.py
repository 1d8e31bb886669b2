"""Which versions go together, and what is said where they don't."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.errors import InvalidFieldError, SkewError
from hairpin.model.session import AgentAddress, Session, SessionSpec, SessionStatus
from hairpin.model.session_json import session_from_json, session_to_json, told_session
from hairpin.model.session_shapes import NEVER
from hairpin.model.target import Target
from hairpin.model.version import (
    OURS,
    UNSTATED,
    Version,
    check_agent,
    check_laptop,
    stated_version,
    user_agent,
    version_of,
    versions_text,
)

VERSIONS = st.builds(
    Version,
    st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}", fullmatch=True),
    st.integers(min_value=1, max_value=9999),
)
SPEC = SessionSpec(target=Target("checkout"), environment="alice", client=OURS)


@given(VERSIONS)
def test_a_user_agent_says_which_version(version):
    assert version_of(user_agent(version)) == version


@pytest.mark.parametrize("agent", ["", "Python/3.11 aiohttp/3.14", "hairpin", "hairpin/", "hairpin/" + 65 * "1"])
def test_one_that_says_nothing_speaks_the_first_protocol(agent):
    assert version_of(agent) == UNSTATED == Version("", 1)


def test_one_from_before_protocols_were_stated():
    assert version_of("hairpin/0.1.0") == Version("0.1.0", 1)


@pytest.mark.parametrize(
    ("laptop", "server", "remedy"),
    [
        (Version("0.9", 1), Version("2.0", 2), "install hairpin 2.0 on the laptop"),
        (Version("2.0", 2), Version("0.9", 1), "`hairpin install` of 2.0, or use hairpin 0.9 on the laptop"),
        (Version("2.0", 2), UNSTATED, "`hairpin install` of 2.0, or use hairpin of protocol 1 on the laptop"),
        (UNSTATED, Version("2.0", 2), "install hairpin 2.0 on the laptop"),
    ],
)
def test_a_skew_names_both_and_who_is_to_be_upgraded(laptop, server, remedy):
    with pytest.raises(SkewError) as refused:
        check_laptop(laptop, server)
    assert str(laptop) in str(refused.value)
    assert str(server) in str(refused.value)
    assert str(refused.value).endswith(remedy)


def test_an_agent_is_brought_to_the_newer_ones_version():
    with pytest.raises(SkewError, match=r"agent is hairpin 0.9 \(protocol 1\).*`hairpin install` of 2.0$"):
        check_agent(Version("0.9", 1), Version("2.0", 2))


@given(VERSIONS, VERSIONS)
def test_versions_of_one_protocol_go_together(one, other):
    check_laptop(one, Version(other.text, one.protocol))
    check_agent(one, Version(other.text, one.protocol))


def test_only_what_differs_is_told():
    assert versions_text(Version("1.0", 1), ("1.0", "1.0"), Version("1.0", 1)) == ""
    assert versions_text(UNSTATED, ("", ""), Version("1.0", 1)) == ""
    text = versions_text(Version("1.1", 1), ("1.0", "1.1", "1.2"), Version("1.0", 1))
    assert text == "this is hairpin 1.0, the control plane is 1.1, the agent is 1.1 and 1.2: they go together"


@pytest.mark.parametrize("document", [None, [], {}, {"spec": 3}, {"spec": {"client": "x"}}, {"spec": {"client": {}}}])
def test_a_document_that_states_nothing(document):
    assert stated_version(document) == UNSTATED


def test_a_newer_laptops_version_is_read_though_the_rest_is_not():
    document = {"spec": {"client": {"version": "9.0", "protocol": 9, "build": "x"}, "of tomorrow": True}}
    assert stated_version(document) == Version("9.0", 9)
    with pytest.raises(InvalidFieldError):
        session_from_json(document)


def test_a_session_carries_all_versions():
    agents = (AgentAddress(name="a-0", host="", tunnel_port=1, egress_port=2, version="0.2.0"),)
    status = SessionStatus(server=Version("0.3.0", 1), agents=agents)
    session = Session(name="s", namespace="shop", owner="alice", created=NEVER, spec=SPEC, status=status)
    document = session_to_json(session)
    assert document["spec"]["client"] == {"version": OURS.text, "protocol": OURS.protocol}
    assert document["status"]["server"] == {"version": "0.3.0", "protocol": 1}
    assert document["status"]["agents"][0]["version"] == "0.2.0"
    assert session_from_json(document) == session


def test_what_a_newer_control_plane_adds_to_a_status_is_left_out():
    session = Session(
        name="s", namespace="shop", owner="alice", created=NEVER, spec=SPEC,
        status=SessionStatus(agents=(AgentAddress(name="a-0", host="", tunnel_port=1, egress_port=2),)),
    )  # fmt: skip
    document = session_to_json(session)
    document["status"] |= {"of tomorrow": 1}
    document["status"]["agents"][0]["zone"] = "a"
    assert told_session(document) == session
    with pytest.raises(InvalidFieldError):
        session_from_json(document)
