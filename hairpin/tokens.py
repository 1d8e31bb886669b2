"""Bearer tokens of the session API: what is kept of them."""

from __future__ import annotations

import hashlib


def token_hash(token: str) -> str:
    """What is stored of a token: it has full entropy, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()
