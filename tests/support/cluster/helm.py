"""Helm, built once like the mesh's programs."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import binaries

VERSION = "v3.19.0"


def helm() -> Path:
    """The program.

    Raises:
        MissingError: Go is missing.
    """
    return binaries._built(f"helm-{VERSION}", [], _install) / "helm"


def _install(out: Path) -> None:
    binaries._go(["install", f"helm.sh/helm/v3/cmd/helm@{VERSION}"], cwd=out, GOBIN=str(out))
