"""Fixtures for all tests, and the rule that CI skips nothing unasked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hairpin.envoy.binary import find_envoy
from tests.support.cluster.fixtures import api_server, cluster, shop
from tests.support.envoy import Http, Ports, http_client
from tests.support.skips import EXPECTED, everything_must_run, is_expected, patterns

__all__ = ["api_server", "cluster", "shop"]  # fixtures


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    return find_envoy()


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Call it for a port that is nobody else's during the test."""
    given = Ports()
    yield given
    given.close()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """Call it with a URL and headers for a Response."""
    async with http_client() as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _judged((yield))


def _judged(report):
    """A skip is a failure where everything must run, unless its reason is in the list."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail") or not everything_must_run(os.environ):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not is_expected(reason, patterns(EXPECTED.read_text().splitlines())):
        report.outcome = "failed"
        report.longrepr = f"skipped, and tests/{EXPECTED.name} does not list the reason: {reason}"
    return report
