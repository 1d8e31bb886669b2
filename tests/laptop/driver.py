"""Runs many programs, a few at once, and prints each one's end as a line of JSON: `hairpin run -- python driver.py JSON`.

The standard library alone: it runs wherever the programs do.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import time
from typing import Any

AT_ONCE = 3
SECONDS = 45.0


def run(case: dict[str, Any]) -> dict[str, Any]:
    """One program to its end."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            case["argv"],
            env=os.environ | case["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = None, error.stdout or b""
    except OSError as error:
        code, output = None, str(error).encode()
    seconds = round(time.monotonic() - started, 2)
    return {"key": case["key"], "code": code, "output": output.decode(errors="replace"), "seconds": seconds}


def main() -> None:
    """All the cases; before the others, one after the other, those that are `first`."""
    cases = json.loads(sys.argv[1])
    for case in cases:
        if case.get("first"):
            print(json.dumps(run(case)), flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(run, [case for case in cases if not case.get("first")]):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
