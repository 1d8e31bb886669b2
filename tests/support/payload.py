"""Bytes that both ends of a test can make for themselves: pseudo-random, from a seed, a block at a time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

BLOCK_BYTES = 65536


def blocks(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes that depend on `seed` alone; no two blocks are alike, so a lost or swapped one changes the sum."""
    generator = random.Random(seed)
    for offset in range(0, size, BLOCK_BYTES):
        yield generator.randbytes(BLOCK_BYTES)[: size - offset]


def sha256(seed: int, size: int) -> str:
    """The checksum of `blocks(seed, size)`."""
    digest = hashlib.sha256()
    for block in blocks(seed, size):
        digest.update(block)
    return digest.hexdigest()
