"""The regular expressions of matches: what is taken, and that it means what Python and RE2 take it for."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.model.regex import fullmatch, is_nullable, literal, render, within
from hairpin.model.regex_syntax import LONGEST, parse
from hairpin.model.shape import UnfitError
from tests.unit.hairpin.model.strategies import REGEXES

TEXTS = st.text(alphabet="abAB1, ;=.-_éK\\(", max_size=8)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("team-[0-9]+", ["team-1", "team-42"], ["team-", "team-1x", "xteam-1"]),
        ("^a|b$", ["a", "b"], ["ab", "xb"]),
        ("(?i)[a-c]X", ["aX", "Bx"], ["dx"]),
        ("a{2,3}?", ["aa", "aaa"], ["a", "aaaa"]),
        ("a{2,}", ["aa", "aaaaa"], ["a"]),
        ("a{0}b", ["b"], ["ab"]),
        ("(?P<who>x|y)(?:1)*", ["x", "y11"], ["1"]),
        ("[]a-]+", ["]", "a-"], ["b"]),
        (r"[^\d\s]", ["a", "-"], ["1", " "]),
        (r"\x41\x{42}\.", ["AB."], ["ABx"]),
        ("..", ["ab", "é"], ["a"]),  # a byte each
        ("é+", ["é", "éé"], ["e"]),
        ("a||b", ["", "a", "b"], ["ab"]),
        ("()", [""], ["a"]),
    ],
)
def test_what_matches(pattern, matching, other):
    node = parse(pattern)
    assert [text for text in matching if not fullmatch(node, text)] == []
    assert [text for text in other if fullmatch(node, text)] == []


@pytest.mark.parametrize(
    ("pattern", "problem", "remedy"),
    [
        ("(?=a)", "has a group that RE2 or we don't have (at its character 1)", "use ( ), (?: )"),
        ("a(?i)b", "has a group", "at the beginning alone"),
        (r"(a)\1", r"has the escape \1 (at its character 4)", r"\d \w \s"),
        (r"\bword", r"has the escape \b", r"\d"),
        (r"\pL", r"has the escape \p", r"\d"),
        ("a++", "repeats a repetition (at its character 3)", "group"),
        ("a{2}{3}", "repeats a repetition", "group"),
        ("*a", "has a * with nothing to repeat", r"\*"),
        ("a{,3}", "has a { that counts nothing", r"\{"),
        ("a{3,2}", "has the count {3,2}", "from less to more"),
        ("a{1001}", "has the count {1001}", "up to 1000"),
        ("(a{50}){50}", "repeats too often", "within 1000"),
        ("(a|bc|def){1000}", "is too large", "smaller counts"),
        ("(a", "has a ( without its ) (at its character 1)", r"\("),
        ("a)", "has a ) without its (", r"\)"),
        ("[a", "has a [ without its ]", r"\["),
        ("[z-a]", "has a range that can't be", "low to high"),
        ("[[:alpha:]]", "has a named class", "[0-9A-Za-z]"),
        ("[é]", "has 'é' in a class", "(a|b)"),
        ("a^b", "has a ^ inside", r"\^"),
        ("(a$)", "has a $ inside", r"\$"),
        ("(" * 30 + ")" * 30, "has too many groups", "20 at most"),
        ("a" * (LONGEST + 1), "is 257 characters long", "256"),
        ("a\\", "has the escape \\ ", r"\d"),
    ],
)
def test_what_is_refused_and_how(pattern, problem, remedy):
    with pytest.raises(UnfitError) as error:
        parse(pattern)
    assert problem in error.value.problem
    assert remedy in error.value.remedy


@given(st.text(alphabet="ab(|)[]*?+.^$\\d{1,2}-:i<P>é", max_size=10))
def test_anything_typed_is_either_taken_or_refused(pattern):
    try:
        node = parse(pattern)
    except UnfitError:
        return
    assert parse(render(node)) == parse(render(parse(render(node))))


@settings(deadline=None)
@given(REGEXES, TEXTS)
def test_pythons_re_agrees_on_the_rendered_expression(pattern, text):
    node = parse(pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = re.compile(render(node).encode("ascii"))
    assert fullmatch(node, text) is (compiled.fullmatch(text.encode()) is not None)


@given(REGEXES)
def test_rendering_is_read_again_as_the_same(pattern):
    rendered = render(parse(pattern))
    if len(rendered) <= LONGEST and r"[^\x00-\xff]" not in rendered:
        assert render(parse(rendered)) == rendered


@given(REGEXES, TEXTS)
def test_confined_it_matches_what_it_did_before_of_the_allowed_characters(pattern, text):
    node, allowed = parse(pattern), frozenset(b"ab1")
    confined = fullmatch(within(node, allowed), text)
    assert confined is (fullmatch(node, text) and set(text.encode()) <= allowed)


@given(REGEXES)
def test_nullable_is_matching_the_empty_string(pattern):
    assert is_nullable(parse(pattern)) is fullmatch(parse(pattern), "")


@given(st.text(max_size=10), st.text(max_size=10))
def test_a_literal_matches_itself_alone(text, other):
    compiled = re.compile(literal(text).encode("ascii"))
    assert compiled.fullmatch(text.encode())
    assert (compiled.fullmatch(other.encode()) is not None) is (text == other)


def test_no_expression_takes_exponentially_long():
    assert not fullmatch(parse("((a|a|aa)*)*b"), "a" * 500)
    assert not fullmatch(parse("(a*)*(a*)*(a*)*b"), "a" * 500)
