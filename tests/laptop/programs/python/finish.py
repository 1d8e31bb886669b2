"""One line: the answer, or the error with its causes."""

from __future__ import annotations

import sys
from collections.abc import Callable


def described(error: BaseException | None) -> str:
    """An exception and what it came from, the way a traceback would say it."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "; by ".join(texts)


def finish(call: Callable[[], str]) -> None:
    """Print what comes of the call, and end."""
    try:
        line, code = f"answer {call()}", 0
    except Exception as error:
        line, code = f"error {described(error)}", 1
    print(line.replace("\n", " "), flush=True)
    sys.exit(code)
