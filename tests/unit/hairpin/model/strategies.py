"""Matches as hypothesis draws them: any that a reader takes."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from hairpin.model.match import (
    And,
    BaggageMember,
    Header,
    Method,
    Not,
    Or,
    Path,
    Query,
    StringKind,
    StringPredicate,
    TracestateMember,
)
from hairpin.model.match_rules import METHODS, check_bounds
from hairpin.model.regex_syntax import check
from hairpin.model.shape import UnfitError

TOKENS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


def _fits(check_it, value) -> bool:
    try:
        check_it(value)
    except UnfitError:
        return False
    return True


REGEXES = st.one_of(
    st.sampled_from(("a.*", r"\d+", "(a|b){2,3}", "(?i)x", "[^b]", "a|", 'say "b"', "it's", "(", "[", "a b", "and")),
    st.text(alphabet="ab(|)[]*?+.^\\d{1,2} '\"", min_size=1, max_size=12),
).filter(lambda value: _fits(check, value))


def predicates(alphabet: str, *, blanks: bool = False, rooted: bool = False):
    text = st.one_of(
        st.text(alphabet=alphabet + " " * blanks, max_size=8),
        st.sampled_from(
            [
                word
                for word in ("and", "not", "=a", "~a", '"', "'", "a(b", "a)b", "(a)", "\\", "*")
                if set(word) <= set(alphabet)
            ]
        ),
    )
    if blanks:
        text = text.map(str.strip)

    def draw(kind: StringKind):
        if kind is StringKind.REGEX:
            return st.builds(StringPredicate, st.just(kind), REGEXES)
        values = (
            text.map(lambda value: f"/{value}") if rooted and kind in (StringKind.EXACT, StringKind.PREFIX) else text
        )
        if kind is not StringKind.EXACT:
            values = values.filter(bool)
        return st.builds(StringPredicate, st.just(kind), values)

    return st.sampled_from(StringKind).flatmap(draw)


def without(*chars: str) -> str:
    return "".join(char for char in VISIBLE if char not in chars)


names = st.text(alphabet=TOKENS, min_size=1, max_size=6)
header_names = names.map(str.lower).filter(lambda name: not name.startswith("x-hairpin-"))
conditions = st.one_of(
    st.builds(Header, header_names, st.none() | predicates(VISIBLE + "é€", blanks=True)),
    st.builds(BaggageMember, names, st.none() | predicates(without(",", ";"))),
    st.builds(
        TracestateMember,
        st.from_regex(r"[0-9a-z][0-9a-z_\-*/@]{0,4}", fullmatch=True),
        st.none() | predicates(without(",")),
    ),
    st.builds(
        Query,
        st.text(alphabet=without("&", "#", "="), min_size=1, max_size=4),
        st.none() | predicates(without("&", "#")),
    ),
    st.builds(Path, predicates(without("?", "#"), rooted=True)),
    st.builds(Method, st.sampled_from(METHODS)),
)


def matches(*, least: int = 1):
    """Trees of conditions; `least` parts in each `and` and `or`."""

    def combined(part):
        parts = st.lists(part, min_size=least, max_size=3).map(tuple)
        return st.one_of(st.builds(And, parts), st.builds(Or, parts), st.builds(Not, part))

    return st.recursive(conditions, combined, max_leaves=8).filter(lambda match: _fits(check_bounds, match))
