"""Names of sessions, and targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.errors import InvalidFieldError
from hairpin.model.names import check_label, is_label, session_name
from hairpin.model.target import KINDS, Target

label_texts = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("owner", "target", "environment", "name"),
    [
        ("alice", Target("checkout"), "alice", "checkout-alice-x1"),
        ("alice", Target("checkout"), None, "checkout-alice-x1"),
        ("alice", Target("checkout"), "new_cart", "checkout-new-cart-x1"),
        ("alice", None, None, "egress-alice-x1"),
        ("alice@example.com", Target("checkout"), None, "checkout-alice-x1"),
        ("system:serviceaccount:ci:robot", Target("checkout"), None, "checkout-robot-x1"),
        ("Zoë", Target("checkout"), None, "checkout-zoe-x1"),
        ("李", Target("checkout"), None, "checkout-x1"),
        ("a" * 80, Target("b" * 63), None, "b" * 30 + "-" + "a" * 29 + "-x1"),
        ("alice", Target("b" * 63), None, "b" * 54 + "-alice-x1"),
    ],
)
def test_a_sessions_name_is_readable(owner, target, environment, name):
    assert session_name(owner, target, environment, "x1") == name


@given(st.text(), label_texts, st.none() | st.text(), st.from_regex(r"[a-z0-9]{4,10}", fullmatch=True))
def test_a_sessions_name_is_a_label_and_ends_in_what_is_unique(owner, target, environment, unique):
    name = session_name(owner, Target(target), environment, unique)
    assert is_label(name)
    assert name.endswith(f"-{unique}")


@pytest.mark.parametrize("unique", ["", "A", "a" * 40, "-a"])
def test_what_is_unique_must_fit(unique):
    with pytest.raises(ValueError, match="DNS label"):
        session_name("alice", None, None, unique)


@pytest.mark.parametrize("text", ["a", "0", "a-b", "a" * 63])
def test_labels(text):
    assert is_label(text)
    assert check_label("metadata.name", text) == text


@pytest.mark.parametrize("text", ["", "A", "-a", "a-", "a.b", "a" * 64, "a\n", "é"])
def test_no_labels(text):
    assert not is_label(text)
    with pytest.raises(InvalidFieldError) as error:
        check_label("metadata.name", text)
    assert error.value.field == "metadata.name"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("checkout", Target("checkout", namespace="shop")),
        ("checkout:8080", Target("checkout", namespace="shop", port=8080)),
        ("checkout:http", Target("checkout", namespace="shop", port="http")),
        ("service/checkout", Target("checkout", namespace="shop")),
        ("deploy/my.app:80", Target("my.app", "deployment", "shop", 80)),
        ("Pod/checkout-0", Target("checkout-0", "pod", "shop")),
    ],
)
def test_targets(text, target):
    assert Target.parse(text, "shop") == target


@given(st.builds(Target, label_texts, st.sampled_from(KINDS), port=st.none() | st.integers(1, 65535) | st.just("http")))
def test_a_target_is_read_as_it_is_written(target):
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("", "lacks a name", "write [KIND/]NAME[:PORT]"),
        (":80", "lacks a name", "write [KIND/]NAME[:PORT]"),
        ("checkout:", "lacks a port", "write [KIND/]NAME[:PORT]"),
        ("servce/checkout", "has an unknown kind 'servce'", "did you mean service/checkout?"),
        ("shop/checkout", "has an unknown kind 'shop'", "a namespace goes into -n"),
        ("checkout.shop", "has a name 'checkout.shop'", "write checkout, and its namespace into -n"),
        ("Checkout", "has a name 'Checkout'", "use a-z"),
        ("checkout:0", "has a port 0", "use 1 to 65535"),
        ("checkout:99999", "has a port 99999", "use 1 to 65535"),
        ("checkout:9999999999", "has a port 9999999999", "use 1 to 65535"),
        ("checkout:h_p", "has a port h_p", "at most 15"),
    ],
)
def test_what_is_no_target(text, problem, remedy):
    with pytest.raises(InvalidFieldError) as error:
        Target.parse(text)
    assert (error.value.field, error.value.value) == ("--target", text)
    assert problem in error.value.problem
    assert remedy in error.value.remedy
