"""Fixtures for all tests, and the rule that CI skips nothing unasked."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hairpin import ports as ports_module
from hairpin.envoy.binary import find_envoy
from tests.support.cluster.fixtures import api_server, cluster, shop
from tests.support.envoy import Http, Ports, http_client
from tests.support.skips import EXPECTED, everything_must_run, is_expected, patterns

__all__ = ["api_server", "cluster", "shop"]  # fixtures

# How long an example takes, or is made, says how busy the machine is, and nothing of what is tested.
_UNHURRIED = (*settings().suppress_health_check, HealthCheck.too_slow)
settings.register_profile("hairpin", settings(), deadline=None, suppress_health_check=_UNHURRIED)
settings.load_profile("hairpin")


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> Iterator[None]:
    """The ports that this process chooses are no other test process': two meshes that chose the same at once would both fail."""
    with contextlib.ExitStack() as held, pytest.MonkeyPatch.context() as patch:
        for first in range(30_000, 32_500, 500):
            taken = held.enter_context(socket.socket(socket.AF_UNIX))
            with contextlib.suppress(OSError):
                taken.bind(f"\0hairpin-tests-{first}")  # gone with this process
                patch.setattr(ports_module, "FIRST", first)
                patch.setattr(ports_module, "LAST", first + 499)
                break
        yield


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
