"""Which tests may be skipped where everything must run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

EXPECTED = Path(__file__).parents[1] / "expected_skips.txt"


def everything_must_run(environment: Mapping[str, str]) -> bool:
    return environment.get("CI", "").lower() in ("1", "true", "yes")


def patterns(lines: Iterable[str]) -> list[str]:
    """One a line; blank lines and `#` comments aside."""
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def is_expected(reason: str, expected: Iterable[str]) -> bool:
    """Whether a reason is in the list, in which `*` stands for anything."""
    return any(fnmatchcase(reason, pattern) for pattern in expected)
