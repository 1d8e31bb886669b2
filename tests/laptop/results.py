"""What the driver said of each program, by column of the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tests.laptop.table import PROGRAMS, Program

Result = dict[str, Any]
Results = dict[str, Result]


def cases(columns: dict[str, dict[bool, str]], ca: Any, **places: Any) -> list[dict[str, Any]]:
    """All programs in all columns; a column has what to ask by HTTP (False) and by gRPC (True), or one of them."""
    return [
        program.case(f"{program}/{column}", asked[program.grpc], ca, **places)
        for column, asked in columns.items()
        for program in PROGRAMS
        if program.grpc in asked
    ]


def read(lines: Iterable[str]) -> Results:
    """The driver's lines; others, which programs may have printed past it, are left out."""

    def each() -> Iterator[Result]:
        for line in lines:
            if line.startswith('{"key": '):
                yield json.loads(line)

    return {result["key"]: result for result in each()}


def answer(results: Results, program: Program, column: str) -> dict[str, Any]:
    """The answer that it got, as JSON."""
    result = results[f"{program}/{column}"]
    assert result["code"] == 0, result
    found = re.search(r"\{.*\}", result["output"], re.DOTALL)
    assert found, result
    parsed: dict[str, Any] = json.loads(found[0])
    return parsed


def check_error(results: Results, program: Program, column: str, pattern: str) -> None:
    """It failed, by itself and in these words."""
    result = results[f"{program}/{column}"]
    assert result["code"] not in (0, None), result
    assert re.search(pattern, result["output"], re.DOTALL), result
