"""Kubernetes' quantities, as `resourceFieldRef` makes text of them (k8s.io/kubernetes/pkg/api/v1/resource)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: dict[str, int] = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}


def quantity(text: str) -> Fraction:
    """`500m`, `1.5Gi`, `2e3` as a number.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix, exponent = Fraction(found[1]), found[2] or "", int(found[3] or 0)
    return number * _BINARY.get(suffix, 1) * Fraction(f"1e{_DECIMAL.get(suffix, 0) + exponent}")


def resource_text(reference: Mapping[str, Any], container: Mapping[str, Any]) -> str | None:
    """What a `resourceFieldRef` says: rounded up to its divisor. None for a limit that is not set: the node's size stands for it.

    Raises:
        ValueError: the reference can't be read.
    """
    kind, _, name = str(reference.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not name:
        raise ValueError(f"resource {reference.get('resource')!r} is neither of limits nor of requests")
    value = ((container.get("resources") or {}).get(kind) or {}).get(name)
    if value is None:
        return None if kind == "limits" else "0"
    divisor = quantity(str(reference.get("divisor") or "1")) or Fraction(1)
    return str(math.ceil(quantity(str(value)) / divisor))
