"""The programs, and meshes for them to call."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.laptop import builds
from tests.support.builds import MissingError


@pytest.fixture(scope="session")
def programs() -> None:
    """All programs are built; what the machine lacks is the reason of a skip."""
    try:
        builds.build_all()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """A port of loopback that refuses: bound, so that nobody else gets it, and never listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
