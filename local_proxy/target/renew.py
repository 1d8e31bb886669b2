"""Keeps the copies of a target's files as the pod has them: tokens before they end, the rest after it has changed.

Each minute the API server is asked for the pod and for the ConfigMaps and Secrets that are mounted, as far as they may be read;
only if one of them is another than before all is read again. Where the reading is an exec, the kubelet may need its time to bring
what has changed to the pod: it is repeated until then.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.errors import HairpinError
from local_proxy.target.copies import write_copies

if TYPE_CHECKING:
    from local_proxy.target.read import Found, Reader

LOOK_SECONDS = 60.0
"""Between two looks at whether something has changed, as a kubelet's."""
LAG_SECONDS = 150.0
"""How long a kubelet may need: its period and its cache's life, both a minute, and some."""
_EARLY = 0.8
"""Of a token's life, after which the next is got: as a kubelet does."""
_PAUSE_SECONDS = (30.0, 3600.0)
"""Between two reads of tokens, at least and at most: a pod may end early, and its tokens with it."""


async def keep_fresh(
    reader: Reader,
    found: Found,
    root: Path,
    warn: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.time,
    look_seconds: float = LOOK_SECONDS,
) -> None:
    """Write copies anew whenever it is time, for ever.

    Args:
        reader: of the target.
        found: what it has read.
        root: where the copies are.
        warn: told, once, that it can't be read.
        clock: seconds since the epoch.
        look_seconds: between two looks.
    """
    told = ""
    known: dict[str, str] | None = None
    due, lags_until = clock() + _pause(found, clock()), 0.0
    while True:
        try:
            marks = await reader.marks()
            changed, known = known is not None and marks != known, marks
            if changed:
                lags_until = clock() + LAG_SECONDS
            if changed or clock() >= due or (found.by_exec and clock() < lags_until):
                found = await reader.read()
                write_copies(found, root, again=True)
                due = clock() + _pause(found, clock())
            told = ""
        except (HairpinError, OSError) as error:
            if told != str(error):
                told = str(error)
                warn(f"the target's files are not kept fresh: {error}; trying on")
        await asyncio.sleep(min(look_seconds, max(0.0, due - clock())) or look_seconds)


def _pause(found: Found, now: float) -> float:
    return pause([found.files[path].data for path in found.tokens if path in found.files], now)


def pause(tokens: list[bytes], now: float) -> float:
    """How long the tokens are good for, in seconds."""
    ends = [_renewal(token) for token in tokens]
    first, longest = _PAUSE_SECONDS
    return max(first, min(longest, *(end - now for end in ends if end is not None), longest))


def _renewal(token: bytes) -> float | None:
    """When a token is to be renewed, in seconds since the epoch; None where it does not say."""
    try:
        payload = token.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        return float(claims["iat"] + _EARLY * (claims["exp"] - claims["iat"]))
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
