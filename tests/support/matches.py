"""Matches and requests at random, from few words, so that they meet often."""

from __future__ import annotations

import random

from hairpin.model.evaluate import Request
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

WORDS = ("a", "b", "ab", "ba", "aab", "a.b", "a+b", "a|b", "(a", "a\\b", "[a]", "^a", "a$", "{a}", "*", "?")
REGEXES = (
    "a.*",
    "[^b]*",
    ".",
    "a|b",
    "(?i)AB?",
    r"\w+",
    r"a\.b",
    "(a|b){2,3}",
    ".*b.*",
    "a?",
    "[ab]+",
    r"\W+",
    ".*",
    "^ab$",
)
KEYS = ("k", "kk", "a.k", "k-1")


class Dice:
    """Draws matches and requests.

    Args:
        seed: the same seed, the same draws.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one_of(self, *choices):
        return self.random.choice(choices)

    def word(self, without: str = "") -> str:
        return self.one_of(*(word for word in WORDS if not set(word) & set(without)))

    def predicate(self, without: str = "") -> StringPredicate:
        kind = self.one_of(*StringKind)
        return StringPredicate(kind, self.one_of(*REGEXES) if kind is StringKind.REGEX else self.word(without))

    def perhaps(self, without: str = "") -> StringPredicate | None:
        return self.predicate(without) if self.random.random() < 0.85 else None

    def condition(self) -> Match:
        match self.random.randrange(6):
            case 0:
                return Header(self.one_of("x-a", "x-b", "cookie"), self.perhaps())
            case 1:
                return BaggageMember(self.one_of(*KEYS), self.perhaps())
            case 2:
                return TracestateMember(self.one_of(*KEYS[:2], "k@v"), self.perhaps())
            case 3:
                return Query(self.one_of(*KEYS), self.perhaps("?#&"))
            case 4:
                return Method(self.one_of("GET", "POST", "PUT"))
            case _:
                return Path(self.path_predicate())

    def path_predicate(self) -> StringPredicate:
        kind = self.one_of(*StringKind)
        match kind:
            case StringKind.EXACT | StringKind.PREFIX:
                return StringPredicate(kind, f"/{self.one_of('', 'a', 'a/', 'a/b', 'b')}")
            case StringKind.REGEX:
                return StringPredicate(kind, self.one_of("/a.*", ".*b", "/[ab]/?.*", "/(?:a|b)"))
            case _:
                return StringPredicate(kind, self.one_of("a", "b", "/b", "a/b"))

    def match(self, depth: int = 3) -> Match:
        if depth == 1 or self.random.random() < 0.4:
            return self.condition()
        some = tuple(self.match(depth - 1) for _ in range(self.random.randint(1, 3)))
        return self.one_of(And(some), Or(some), Not(some[0]))

    def value(self) -> str:
        return "".join(self.word() for _ in range(self.random.randint(0, 2)))

    def space(self) -> str:
        return self.one_of("", "", "", " ", "\t", "  ")

    def baggage(self) -> str:
        s = self.space
        properties = (f"{s()};{s()}{self.one_of('p', 'k=a', 'k=b;kk=ab')}" for _ in range(self.random.randint(0, 1)))
        member = f"{s()}{self.one_of(*KEYS, 'ak', 'x')}{s()}={s()}{self.value()}{s()}{''.join(properties)}{s()}"
        return self.one_of(*[member] * 8, f"{self.one_of(*KEYS)}", "", "k=a b", "x=k=a", "k")

    def tracestate(self) -> str:
        s = self.space
        member = f"{s()}{self.one_of(*KEYS[:2], 'k@v', 'ak')}={self.value()}{s()}"
        return self.one_of(*[member] * 8, "", "k =a", "k= a", "k=a b", "k", "x=k=a")

    def joined(self, draw) -> list[str]:
        """Values of one or several headers, each a list."""
        return [",".join(draw() for _ in range(self.random.randint(1, 3))) for _ in range(self.one_of(1, 1, 2))]

    def path(self) -> str:
        pieces = [self.one_of("a", "b", "a/b", "")]
        parameters = []
        for _ in range(self.one_of(0, 1, 1, 2, 3)):
            value = "".join(
                self.one_of("a", "b", "ab", ".", "?", "+", "|", "*", "(", "a=b") for _ in range(self.one_of(0, 1, 2))
            )
            parameters.append(self.one_of(*KEYS, "ak", "x") + self.one_of(f"={value}", f"={value}", ""))
        return "/" + "".join(pieces) + (f"?{'&'.join(parameters)}" if parameters else "")

    def request(self) -> Request:
        headers: list[tuple[str, str]] = []
        for name in ("x-a", "X-B", "cookie"):
            headers += [(name, self.value()) for _ in range(self.one_of(0, 1, 1, 2))]
        if self.random.random() < 0.8:
            headers += [("baggage", value) for value in self.joined(self.baggage)]
        if self.random.random() < 0.8:
            headers += [("tracestate", value) for value in self.joined(self.tracestate)]
        return Request(method=self.one_of("GET", "POST", "PUT"), path=self.path(), headers=tuple(headers))
