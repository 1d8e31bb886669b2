"""What a match may hold: the names and values that can occur in a request, and bounds of size.

Both readers (`match_text`, `match_json`) and the schema use these, so that they agree. A value that could never occur in
its place is refused with the reason, rather than kept as a match that never matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hairpin.model import regex_syntax
from hairpin.model.match import (
    And,
    BaggageMember,
    Header,
    Match,
    Not,
    Or,
    Path,
    Query,
    StringKind,
    StringPredicate,
    TracestateMember,
)
from hairpin.model.shape import Choice, Refusal, Text, UnfitError

DEEPEST = 16
"""How deep `and`, `or` and `not` may be nested. Protobuf, JSON and Envoy all recurse over them."""
LARGEST = 64
"""How many conditions, `and`s, `or`s and `not`s a match may have."""
LONGEST_VALUE = 1024
"""Characters of a value; a regular expression has a bound of its own."""

METHODS = (
    *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
    *("ACL", "CHECKOUT", "COPY", "LOCK", "MERGE", "MKCALENDAR", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "PURGE"),
    *("QUERY", "REPORT", "SEARCH", "SUBSCRIBE", "UNLOCK", "UNSUBSCRIBE"),
)
METHOD = Choice(METHODS)

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, 5.6.2
_OWN = Refusal(r"^[Xx]-[Hh][Aa][Ii][Rr][Pp][Ii][Nn]-", "is one of hairpin's own", "match another header")
_PSEUDO = (
    Refusal("^:path$", "is no header", "match `path` or `query`"),
    Refusal("^:method$", "is no header", "match `method`"),
    Refusal("^:authority$", "is no header", "match the header `host`"),
    Refusal("^:", "is no header", "match a header of the request"),
)
_TEXT = r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]"  # a header's value: no control characters but the tab
_EDGE = r"[^\x00-\x20\x7f\ud800-\udfff]"  # HTTP trims blanks off both ends
_BAGGAGE = r"[\x21-\x2b\x2d-\x3a\x3c-\x7e]"  # w3.org/TR/baggage; " and \ are seen in the wild
_TRACESTATE = r"[\x21-\x2b\x2d-\x7e]"
_PATH = r"[\x21\x22\x24-\x3e\x40-\x7e]"
_QUERY = r"[\x21\x22\x24\x25\x27-\x7e]"
_QUERY_NAME = r"[\x21\x22\x24\x25\x27-\x3c\x3e-\x7e]+"
_ENCODE = "what is not ASCII, and blanks, are percent-encoded on the wire"

_REGEX = Text(
    what="a regular expression",
    remedy="drop control characters",
    pattern=f"{_TEXT}+",
    least=1,
    most=regex_syntax.LONGEST,
    check=regex_syntax.check,
    format="re2",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A kind of condition on a string: what it is about, and what that can be."""

    word: str
    """As both languages call it."""
    name_field: str
    """In JSON; empty where there is only one, as with the path."""
    name: Text
    values: Mapping[StringKind, Text]
    make: Callable[[str, StringPredicate | None], Match]
    description: str


def _values(
    what: str, char: str, remedy: str, *, edge: str = "", refusals: tuple[Refusal, ...] = ()
) -> dict[StringKind, Text]:
    """The texts of each kind: of `char`s; at the value's own ends, of `edge`."""
    edge = edge or char
    text = Text(what=what, remedy=remedy, most=LONGEST_VALUE, refusals=refusals)
    patterns = {
        StringKind.EXACT: f"(?:{edge}(?:{char}*{edge})?)?",
        StringKind.PREFIX: f"{edge}{char}*",
        StringKind.SUFFIX: f"{char}*{edge}",
        StringKind.CONTAINS: f"{char}+",
    }
    texts = {
        kind: replace(text, pattern=pattern, least=int(kind is not StringKind.EXACT))
        for kind, pattern in patterns.items()
    }
    return {**texts, StringKind.REGEX: _REGEX}


def _path_values() -> dict[StringKind, Text]:
    query = Refusal(r"[?#]", "goes beyond the path", "match the query by `query NAME=VALUE`")
    texts = _values("a path", _PATH, _ENCODE, refusals=(query,))
    for kind, pattern in ((StringKind.EXACT, f"/{_PATH}*"), (StringKind.PREFIX, f"/{_PATH}*")):
        remedy = f"begin with /; {_ENCODE}"
        texts[kind] = replace(texts[kind], pattern=pattern, least=1, remedy=remedy)
    return texts


def _no_name(value: str) -> Text:
    return Text(what=value, remedy="", pattern="")


SUBJECTS: dict[str, Subject] = {
    subject.word: subject
    for subject in (
        Subject(
            word="header",
            name_field="name",
            name=Text(
                what="a header's name",
                remedy="use letters, digits and -",
                pattern=_TCHARS,
                least=1,
                refusals=(_OWN, *_PSEUDO),
                lower=True,
            ),
            values=_values("a header's value", _TEXT, "drop blanks at its ends and control characters", edge=_EDGE),
            make=Header,
            description="A request header; any of several of one name.",
        ),
        Subject(
            word="baggage",
            name_field="key",
            name=Text(what="a baggage key", remedy="use letters, digits, - and .", pattern=_TCHARS, least=1),
            values=_values("a baggage value", _BAGGAGE, f"it has no comma and no semicolon; {_ENCODE}"),
            make=BaggageMember,
            description="A member of the W3C baggage header, compared as it was sent.",
        ),
        Subject(
            word="tracestate",
            name_field="key",
            name=Text(
                what="a tracestate key",
                remedy="use lower-case letters, digits, - _ * / and @",
                pattern=r"[0-9a-z][0-9a-z_\-*/@]*",
                least=1,
            ),
            values=_values("a tracestate value", _TRACESTATE, "it has no comma, no blank and only ASCII"),
            make=TracestateMember,
            description="A member of the W3C tracestate header.",
        ),
        Subject(
            word="path",
            name_field="",
            name=_no_name("the path"),
            values=_path_values(),
            make=lambda _, value: Path(_given(value)),
            description="The path without its query.",
        ),
        Subject(
            word="query",
            name_field="name",
            name=Text(
                what="a query parameter's name", remedy=f"it has no =, & and #; {_ENCODE}", pattern=_QUERY_NAME, least=1
            ),
            values=_values("a query parameter's value", _QUERY, f"it has no & and no #; {_ENCODE}"),
            make=Query,
            description="A parameter of the query, compared as it was sent; any of several of one name.",
        ),
    )
}


def _given(value: StringPredicate | None) -> StringPredicate:
    if value is None:
        raise ValueError("a path is always there: it needs a value")
    return value


def subject_of(match: Match) -> tuple[Subject, str, StringPredicate | None] | None:
    """A condition's subject, name and predicate; None for methods and what combines conditions."""
    match match:
        case Header(name, value):
            return SUBJECTS["header"], name, value
        case BaggageMember(name, value):
            return SUBJECTS["baggage"], name, value
        case TracestateMember(name, value):
            return SUBJECTS["tracestate"], name, value
        case Query(name, value):
            return SUBJECTS["query"], name, value
        case Path(value):
            return SUBJECTS["path"], "", value
        case _:
            return None


def parts_of(match: Match) -> tuple[Match, ...]:
    """What the match is made of, one level down."""
    match match:
        case And(parts) | Or(parts):
            return parts
        case Not(part):
            return (part,)
        case _:
            return ()


def depth(match: Match) -> int:
    """Levels of nesting; a condition alone has one."""
    return 1 + max(map(depth, parts_of(match)), default=0)


def size(match: Match) -> int:
    """Conditions, `and`s, `or`s and `not`s."""
    return 1 + sum(map(size, parts_of(match)))


def check_bounds(match: Match) -> None:
    """Raise UnfitError if the match as a whole is too large."""
    if depth(match) > DEEPEST:
        raise UnfitError("is nested too deep", f"use {DEEPEST} levels at most")
    if size(match) > LARGEST:
        raise UnfitError(f"has {size(match)} conditions and connectives", f"use {LARGEST} at most")
