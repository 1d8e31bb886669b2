"""The match language of the command line, made for people who type it into a shell (docs/match.md).

    header x-user=42 and path ^/api
    not (method GET,HEAD or header x-debug) and query id~[0-9]+

A condition is a word (`header`, `baggage`, `tracestate`, `query`, `path`, `method`), mostly a name, and an operator with a
value: `=` exactly, `!=` not so, `^=` begins, `$=` ends, `*=` contains, `~` a regular expression of RE2. With a path the
operators stand in front: `/exact`, `^/prefix`, `$suffix`, `*part`, `~regex`. `not` binds closer than `and`, `and` than `or`.
`hairpin.model.match_format` writes it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import NoReturn

from hairpin.errors import InvalidFieldError
from hairpin.model.match import And, Match, Method, Not, Or, StringKind, StringPredicate
from hairpin.model.match_rules import DEEPEST, METHOD, METHODS, SUBJECTS, Subject, check_bounds
from hairpin.model.scanner import Scanner
from hairpin.model.shape import UnfitError
from hairpin.model.suggest import closest

LONGEST = 4096
"""Characters of a match."""
OPERATORS = {
    "=": StringKind.EXACT,
    "^=": StringKind.PREFIX,
    "$=": StringKind.SUFFIX,
    "*=": StringKind.CONTAINS,
    "~": StringKind.REGEX,
}
SIGNS = {
    "": StringKind.EXACT,
    "^": StringKind.PREFIX,
    "$": StringKind.SUFFIX,
    "*": StringKind.CONTAINS,
    "~": StringKind.REGEX,
}
"""The operators of a path."""
CONNECTIVES = ("and", "or", "not")
WORDS = (*SUBJECTS, "method")
NAME = re.compile(r":?[A-Za-z0-9_.@/%+\[\]-]+")
"""Names that need no quotes."""

_OPERATOR = re.compile(r"!=|\^=|\$=|\*=|=|~")
_SIGN = re.compile(r"!=|[\^$*]=?|~|=|")
_CHUNK = re.compile(r"[^\s()]+")
_METHODS_OPERATOR = re.compile(r"!=|=|")


def parse_match(text: str, field: str = "--match") -> Match:
    """Read a match.

    Args:
        text: what was typed.
        field: where, for errors.

    Raises:
        InvalidFieldError: it can't be read; shows where, what was found and what would be right.
    """
    if len(text) > LONGEST:
        raise InvalidFieldError(field, text[:80] + "…", f"is {len(text)} characters long", f"use {LONGEST} at most")
    return _Parser(text, field).parse()


class _Parser(Scanner):
    def parse(self) -> Match:
        match = self.alternatives(1)
        self.skip_blanks()
        if self.at < len(self.text):
            self.fail_between()
        try:
            check_bounds(match)
        except UnfitError as error:
            self.fail(0, len(self.text), error.problem, error.remedy)
        return match

    def alternatives(self, level: int) -> Match:
        parts = [self.conjunction(level)]
        while self.take_word("or"):
            parts.append(self.conjunction(level))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def conjunction(self, level: int) -> Match:
        parts = [self.negation(level)]
        while self.take_word("and"):
            parts.append(self.negation(level))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negation(self, level: int) -> Match:
        self.skip_blanks()
        opened = self.at
        if level > 2 * DEEPEST:  # parentheses around one thing alone add nothing to the match's own depth
            self.fail(opened, opened + 1, "is nested too deep", f"use {DEEPEST} levels at most")
        if self.take_word("not"):
            return Not(self.negation(level + 1))
        if not self.take("("):
            return self.condition()
        match = self.alternatives(level + 1)
        self.skip_blanks()
        if not self.take(")"):
            if self.at < len(self.text):
                self.fail_between()
            self.fail(opened, opened + 1, "is not closed", "add a ) where it ends")
        return match

    def condition(self) -> Match:
        word = self.chunk()
        if word not in WORDS:
            self.fail_condition()
        self.at += len(word)
        self.skip_blanks()
        if word == "method":
            return self.methods()
        subject = SUBJECTS[word]
        return self.named(subject) if subject.name_field else self.path(subject)

    def named(self, subject: Subject) -> Match:
        start = self.at
        name = self.quoted() if self.peek() in ('"', "'") else self.matched(NAME)
        if not name or (name in CONNECTIVES and self.text[start] not in "\"'"):
            example = (
                f"{subject.word} x-user=42"
                if subject.word == "header"
                else f"{subject.word} {subject.name_field}=value"
            )
            self.fail(
                start, start + len(name), f"stands where {subject.name.what} should", f"write it as in `{example}`"
            )
        name = self.checked(start, lambda: subject.name.read(name, self.field))
        before = self.at
        self.skip_blanks()
        operator = self.matched(_OPERATOR)
        if not operator:
            self.at = before
            if self.peek() not in ("", " ", "\t", "\n", ")"):
                end = before + 1
                self.fail(
                    before,
                    end,
                    "is no operator",
                    f"use one of {' '.join(('!=', *OPERATORS))}, or put the name in quotes",
                )
            return subject.make(name, None)
        return self.valued(subject, name, OPERATORS.get(operator, StringKind.EXACT), negated=operator == "!=")

    def path(self, subject: Subject) -> Match:
        sign = self.matched(_SIGN)
        kind = SIGNS[sign.rstrip("=") if sign != "!=" else ""]
        return self.valued(subject, "", kind, negated=sign == "!=")

    def valued(self, subject: Subject, name: str, kind: StringKind, *, negated: bool) -> Match:
        start = self.at + len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
        value = self.value(f"for {subject.word} {name}".rstrip())
        bare = self.text[start] not in "\"'"
        if bare and value[0] in "=~":
            remedy = "write one = alone, ~ alone for a regular expression, or the value in quotes"
            self.fail(start, start + 1, "stands after an operator", remedy)
        if bare and subject.word == "path" and kind is StringKind.EXACT and value.endswith("/*"):
            remedy = f"write ^{value[:-1]} for all that is below, or quotes if you mean the star"
            self.fail(start, self.at, "would be that very path", remedy)
        value = self.checked(start, lambda: subject.values[kind].read(value, self.field))
        match = subject.make(name, StringPredicate(kind, value))
        return Not(match) if negated else match

    def methods(self) -> Match:
        negated = self.matched(_METHODS_OPERATOR) == "!="
        self.skip_blanks()
        start = self.at
        names = self.value("for method").split(",")
        methods = []
        for name in names:
            end = start + len(name)
            methods.append(Method(self.checked(start, partial(METHOD.read, name.upper(), self.field), end)))
            start = end + 1
        match: Match = methods[0] if len(methods) == 1 else Or(tuple(methods))
        return Not(match) if negated else match

    def value(self, what: str) -> str:
        """A value in quotes, or up to a blank or the ) that closes a group."""
        self.skip_blanks()
        if self.peek() in ('"', "'"):
            return self.quoted()
        start, depth = self.at, 0
        while self.at < len(self.text) and not self.text[self.at].isspace():
            char = self.text[self.at]
            if char == "\\":
                self.at += 1
            elif char == ")" and depth == 0:
                break
            depth += (char == "(") - (char == ")")
            self.at += 1
        self.at = min(self.at, len(self.text))
        value = self.text[start : self.at]
        if not value or value in CONNECTIVES:
            remedy = "put it in quotes if you mean this word" if value else 'write one; the empty one is ""'
            self.fail(start, self.at, f"stands where a value {what} should", remedy)
        return value

    def take_word(self, word: str) -> bool:
        self.skip_blanks()
        if self.chunk() != word:
            return False
        self.at += len(word)
        return True

    def chunk(self) -> str:
        """What stands here as a word: up to a blank or a parenthesis."""
        found = _CHUNK.match(self.text, self.at)
        return found[0] if found else ""

    def fail_between(self) -> NoReturn:
        """Something stands where only `and`, `or` or the end may."""
        start, chunk = self.at, self.chunk() or self.peek()
        end = start + len(chunk)
        signs = {"&&": "and", "||": "or", "&": "and", "|": "or", ",": "and"}
        if chunk == ")":
            self.fail(start, end, "closes nothing", "drop it, or add a ( where the group begins")
        if chunk in signs:
            self.fail(start, end, "is no word of this language", f"write `{signs[chunk]}`")
        if chunk in (*WORDS, "not") or chunk == "(":
            self.fail(start, end, "stands right after a condition", "write `and` or `or` between the two")
        guess = closest(chunk, ("and", "or"))
        problem = "is neither `and` nor `or`"
        self.fail(start, end, problem, f"did you mean `{guess}`?" if guess else "put a value with blanks in quotes")

    def fail_condition(self) -> NoReturn:
        """Something stands where a condition should begin."""
        start, chunk = self.at, self.chunk() or self.peek()
        end = start + len(chunk)
        known = f"begin one with {', '.join(WORDS)} or not"
        if not chunk:
            problem = "ends where a condition should follow" if self.text.strip() else "is empty"
            self.fail(start, end, problem, known)
        self.fail(start, end, "begins no condition", _guess_condition(chunk) or known)


def _guess_condition(chunk: str) -> str:
    """What was probably meant by it; empty if there is no telling."""
    word = re.split(r"[=~^$*!:]", chunk)[0]
    if chunk.startswith(("/", "^/", "~/")):
        return f"did you mean `path {chunk}`?"
    if chunk in METHODS:
        return f"did you mean `method {chunk}`?"
    if chunk.startswith("!"):
        return "write `not`"
    if chunk in CONNECTIVES or chunk in ("&&", "||", ")"):
        return "a condition is missing before it"
    if word in WORDS:
        return f"write `{word} ` and a blank before the rest"
    guess = closest(word, (*WORDS, "not"))
    if guess:
        return f"did you mean `{guess}`?"
    return f"did you mean `header {chunk}`?" if "=" in chunk else ""
