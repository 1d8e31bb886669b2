from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import everything_must_run, is_expected, patterns

ROOT = Path(__file__).parents[2]
SKIPS = """
import pytest
@pytest.mark.skip(reason="because")
def test_marked(): pass
def test_inside(): pytest.skip("of this")
@pytest.mark.xfail(strict=True)
def test_xfail(): assert False
"""


def test_the_list_takes_comments_and_wildcards():
    expected = patterns(["# a comment", "", "  needs root: *  ", "exact"])
    assert expected == ["needs root: *", "exact"]
    assert is_expected("needs root: tcpdump", expected)
    assert not is_expected("it needs root: tcpdump", expected)
    assert not is_expected("exactly", expected)


def test_ci_is_where_everything_must_run():
    assert [everything_must_run({"CI": value}) for value in ("true", "1", "", "false")] == [True, True, False, False]
    assert not everything_must_run({})


@pytest.mark.parametrize(("ci", "outcomes"), [("", "1 xfailed, 2 skipped"), ("true", "1 failed, 1 error, 1 xfailed")])
def test_a_skip_that_is_not_listed_fails_in_ci(tmp_path, ci, outcomes):
    (tmp_path / "test_skips.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    found = {part.strip().removesuffix("s") for part in result.stdout.splitlines()[-1].partition(" in ")[0].split(",")}
    assert found == {part.strip() for part in outcomes.split(",")}, result.stdout
