"""Ports that a test chooses now and has bound later."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from hairpin.errors import UnavailableError
from hairpin.ports import free_ports


def _free_ports() -> Iterator[int]:
    while True:
        with contextlib.suppress(UnavailableError):  # at the end of the range: from its beginning again
            yield from free_ports()


_ports = functools.cache(_free_ports)


def free_port() -> int:
    """One that no connection takes before it is bound, and that is not given again soon."""
    return next(_ports())
