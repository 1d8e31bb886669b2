r"""The match language of the command line, for people who type it into a shell.

    header x-user=42 and path ^/api
    not (method GET,HEAD or header x-debug) and query q~"[0-9]+"
    baggage env=alice or tracestate env^=team-

An atom is `header|query NAME`, `baggage|tracestate KEY`, alone (it is there) or with an operator and a value; `path` and a
value; or `method` and one or more methods. `=` exact, `!=` not that value, `^=` prefix, `$=` suffix, `*=` contains, `~`
regular expression (RE2, the whole value). A path takes its operator in front: `/exact`, `^/prefix`, `$suffix`, `*contains`,
`~regex`. `and` binds closer than `or`. Quotes, single or double, around what has spaces or begins with an operator; `\` escapes
in them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from hairpin.errors import InvalidFieldError
from hairpin.model.match import (
    And,
    BaggageMember,
    Header,
    Match,
    Method,
    Not,
    Or,
    Path,
    Query,
    StringKind,
    StringPredicate,
    TracestateMember,
)
from hairpin.model.match_json import (
    DEEPEST,
    check_header,
    check_key,
    check_method,
    check_query,
    check_value,
    match_from_json,
    match_to_json,
)
from hairpin.model.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

ATOMS = ("header", "baggage", "tracestate", "path", "method", "query")
WORDS = (*ATOMS, "and", "or", "not")
OPERATORS = {
    "^=": StringKind.PREFIX,
    "$=": StringKind.SUFFIX,
    "*=": StringKind.CONTAINS,
    "~=": StringKind.REGEX,
    "~": StringKind.REGEX,
    "=": StringKind.EXACT,
}
SIGNS = {"^": StringKind.PREFIX, "$": StringKind.SUFFIX, "*": StringKind.CONTAINS, "~": StringKind.REGEX}
_OPERATOR = re.compile(r"!=|\^=|\$=|\*=|~=|~|=")
_NAME = re.compile(r"[A-Za-z0-9_.%+@/\[\]-]+")
_SPACE = re.compile(r"\s*")


def parse_match(text: str, field: str = "--match") -> Match:
    """Read a match.

    Raises:
        InvalidFieldError: it can't be read; the error shows where.
    """
    parser = _Parser(text, field)
    match = parser.disjunction(1)
    parser.space()
    if parser.at < len(text):
        parser.fail("is not understood from here on", "join predicates with `and` or `or`")
    return match_from_json(match_to_json(match), field)  # bounds, once for all


def format_match(match: Match) -> str:
    """Write a match; `parse_match` reads it back."""
    match match:
        case And(parts) | Or(parts):
            word = " and " if isinstance(match, And) else " or "
            return word.join(_grouped(part) for part in parts) if len(parts) > 1 else _grouped(parts[0])
        case Not(part):
            return f"not {_grouped(part)}"
        case Method(name):
            return f"method {name}"
        case Path(value):
            sign = next((sign for sign, kind in SIGNS.items() if kind is value.kind), "")
            return f"path {sign}{_quoted(value.value)}"
        case Header(name, value):
            return f"header {_atom(name, value)}"
        case Query(name, value):
            return f"query {_atom(name, value)}"
        case BaggageMember(key, value):
            return f"baggage {_atom(key, value)}"
        case TracestateMember(key, value):
            return f"tracestate {_atom(key, value)}"


def _grouped(match: Match) -> str:
    text = format_match(match)
    return f"({text})" if isinstance(match, And | Or) else text


def _atom(name: str, value: StringPredicate | None) -> str:
    left = name if _NAME.fullmatch(name) else _in_quotes(name)
    if value is None:
        return left
    operator = next(sign for sign, kind in OPERATORS.items() if kind is value.kind and sign != "~=")
    return f"{left}{operator}{_quoted(value.value)}"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_./:@%+,;&?=-][A-Za-z0-9_./:@%+,;&?=^$*~|-]*", text) else _in_quotes(text)


def _in_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Parser:
    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.at = 0
        self._field = field

    def fail(self, problem: str, remedy: str, at: int | None = None) -> NoReturn:
        """Point at the place."""
        at = self.at if at is None else at
        rest = self.text[at:]
        shown = f"{self.text[:at]}»{rest}" if rest.strip() else f"{self.text} »"
        raise InvalidFieldError(self._field, shown, problem, remedy)

    def space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def word(self) -> str:
        """The word that stands here, not taken."""
        self.space()
        found = re.compile(r"[A-Za-z]+(?=[\s()]|$)").match(self.text, self.at)
        return found[0].lower() if found else ""

    def take(self, word: str) -> bool:
        if self.word() != word:
            return False
        self.at += len(word)
        return True

    def disjunction(self, depth: int) -> Match:
        return self._joined("or", lambda: self._joined("and", lambda: self.unary(depth), And), Or)

    def _joined(self, word: str, part: Callable[[], Match], kind: type[And] | type[Or]) -> Match:
        parts = [part()]
        while self.take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def unary(self, depth: int) -> Match:
        if depth > DEEPEST:
            self.fail("is nested too deep", f"use at most {DEEPEST} levels")
        if self.take("not"):
            return Not(self.unary(depth + 1))
        self.space()
        if not self.text.startswith("(", self.at):
            return self.atom()
        opened = self.at
        self.at += 1
        inside = self.disjunction(depth + 1)
        self.space()
        if not self.text.startswith(")", self.at):
            self.fail("has a parenthesis that is not closed", "add )", opened)
        self.at += 1
        return inside

    def atom(self) -> Match:
        word = self.word()
        if word not in ATOMS:
            if self.at >= len(self.text):
                self.fail("ends too early", f"go on with one of {', '.join(ATOMS)}")
            hint = did_you_mean(word, WORDS) if word else ""
            self.fail("has no predicate here", f"start one with {', '.join(ATOMS)}{hint}")
        self.at += len(word)
        self.space()
        match word:
            case "path":
                return Path(self.path())
            case "method":
                return self.methods()
            case _:
                return self.named(word)

    def named(self, word: str) -> Match:
        start = self.at
        name = self.quoted() if self.text[self.at : self.at + 1] in ('"', "'") else self.matched(_NAME)
        if not name:
            self.fail(f"has `{word}` without a name", f"write {word} NAME or {word} NAME=VALUE", start)
        self.space_before_operator()
        operator = self.matched(_OPERATOR)
        value: StringPredicate | None = None
        if operator:
            self.space()
            kind = OPERATORS.get(operator, StringKind.EXACT)
            value = check_value(kind, self.value(), self._field)
        match: Match
        if word == "header":
            match = Header(check_header(name, self._field), value)
        elif word == "query":
            match = Query(check_query(name, self._field), value)
        elif word == "baggage":
            match = BaggageMember(check_key(name, self._field), value)
        else:
            match = TracestateMember(check_key(name, self._field), value)
        return Not(match) if operator == "!=" else match

    def space_before_operator(self) -> None:
        """`x = 1` as people write it: the space counts only where no operator follows."""
        found = _SPACE.match(self.text, self.at)
        if found and _OPERATOR.match(self.text, found.end()):
            self.at = found.end()

    def path(self) -> StringPredicate:
        kind = SIGNS.get(self.text[self.at : self.at + 1], StringKind.EXACT)
        start = self.at
        self.at += 0 if kind is StringKind.EXACT else 1
        value = self.value()
        if kind in (StringKind.EXACT, StringKind.PREFIX) and not value.startswith("/"):
            self.fail("is a path that does not begin with /", "write path /exact, path ^/prefix or path ~REGEX", start)
        return check_value(kind, value, self._field)

    def methods(self) -> Match:
        names = [check_method(name, self._field) for name in self.value().split(",") if name]
        if not names:
            self.fail("has `method` without one", "write method POST, or method GET,HEAD")
        return Method(names[0]) if len(names) == 1 else Or(tuple(Method(name) for name in names))

    def value(self) -> str:
        """A value in quotes, or up to the next space; parentheses in it must balance."""
        if self.text[self.at : self.at + 1] in ('"', "'"):
            return self.quoted()
        start, depth = self.at, 0
        while self.at < len(self.text) and not self.text[self.at].isspace():
            character = self.text[self.at]
            if character == ")" and depth == 0:
                break
            depth += (character == "(") - (character == ")")
            self.at += 1
        if self.at == start:
            self.fail("has no value here", "write one; '' for an empty one")
        return self.text[start : self.at]

    def quoted(self) -> str:
        quote, start = self.text[self.at], self.at
        found = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL).match(self.text, self.at)
        if not found:
            self.fail("has a quote that is not closed", f"add {quote}", start)
        self.at = found.end()
        return re.sub(rf"\\([\\{quote}])", r"\1", found[1])

    def matched(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""
