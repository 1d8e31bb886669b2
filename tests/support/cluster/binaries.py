"""The mesh's programs, built once from Go modules at pinned versions and kept outside the clone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tests.support import builds
from tests.support.builds import MissingError, require

ISTIO = "v0.0.0-20260827124520-eed52ebb66ad"
"""Istio's 1.31 development line; its release tags have no `v`, so Go knows pseudo-versions only."""

HELM = "v3.19.0"

_HERE = Path(__file__).parent
_KUBERNETES = _HERE / "kubernetes"
_COREDNS = _HERE / "coredns"
_ISTIO_PROGRAMS = ("pilot/cmd/pilot-discovery", "pilot/cmd/pilot-agent", "pkg/test/echo/cmd/server")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneBinaries:
    """What an API server needs."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    kubectl: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshBinaries:
    """What a mesh needs beside them."""

    kube_proxy: Path
    node: Path
    pilot_discovery: Path
    pilot_agent: Path
    echo: Path
    coredns: Path
    istio_source: Path
    """Istio's module, read-only: CRDs, the injection template, Envoy's bootstrap."""


def cache() -> Path:
    """Where built programs are kept, a folder for each version of each part."""
    return builds.cache("cluster")


def control_plane() -> ControlPlaneBinaries:
    """The API server's programs, built if they are not there.

    Raises:
        MissingError: Go or etcd is missing.
    """
    require("etcd", "etcd-server")
    commands = ("kube-apiserver", "kube-controller-manager", "kubectl")
    sources = [_KUBERNETES / "go.mod", _KUBERNETES / "go.sum", *(_KUBERNETES / name / "main.go" for name in commands)]
    folder = _built("kubernetes", sources, lambda out: _go_build(_KUBERNETES, out, commands))
    return ControlPlaneBinaries(
        etcd=require("etcd", "etcd-server"),
        apiserver=folder / "kube-apiserver",
        controller_manager=folder / "kube-controller-manager",
        kubectl=folder / "kubectl",
    )


def mesh() -> MeshBinaries:
    """The mesh's programs, built if they are not there.

    Raises:
        MissingError: Go is missing.
    """
    sums = [_KUBERNETES / "go.mod", _KUBERNETES / "go.sum"]
    proxy_sources = [*sums, _KUBERNETES / "kube-proxy" / "main.go"]
    proxy = _built("kube-proxy", proxy_sources, lambda out: _go_build(_KUBERNETES, out, ["kube-proxy"]))
    node_sources = [*sums, *sorted((_KUBERNETES / "node").rglob("*.go"))]
    node = _built("node", node_sources, lambda out: _go_build(_KUBERNETES, out, ["node"]))
    coredns_sources = [_COREDNS / "go.mod", _COREDNS / "go.sum", _COREDNS / "main.go"]
    coredns = _built("coredns", coredns_sources, lambda out: _go_build(_COREDNS, out, ["."], name="coredns"))
    packages = [f"istio.io/istio/{program}@{ISTIO}" for program in _ISTIO_PROGRAMS]
    istio = _built(f"istio-{ISTIO}", [], lambda out: _go_install(out, packages))
    return MeshBinaries(
        kube_proxy=proxy / "kube-proxy",
        node=node / "node",
        pilot_discovery=istio / "pilot-discovery",
        pilot_agent=istio / "pilot-agent",
        echo=istio / "server",
        coredns=coredns / "coredns",
        istio_source=istio_source(),
    )


def helm() -> Path:
    """Helm, for tests of the chart; built if it is not there.

    Raises:
        MissingError: Go is missing.
    """
    package = f"helm.sh/helm/v3/cmd/helm@{HELM}"
    return _built(f"helm-{HELM}", [], lambda out: _go_install(out, [package])) / "helm"


def istio_source() -> Path:
    """The folder of Istio's module in Go's own cache.

    Raises:
        MissingError: Go is missing.
    """
    described = _go(["mod", "download", "-json", f"istio.io/istio@{ISTIO}"], cwd=_HERE)
    return Path(json.loads(described)["Dir"])


def _built(name: str, sources: Sequence[Path], build: Callable[[Path], None]) -> Path:
    folder = cache() / (f"{name}-{builds.fingerprint(sources, _HERE)}" if sources else name)
    if not folder.exists():
        require("go", "golang, or Go itself")
    return builds.built(folder, name, build)


def _go_build(module: Path, out: Path, commands: Sequence[str], *, name: str = "") -> None:
    for command in commands:
        target = out / (name or command)
        package = command if command == "." else f"./{command}"
        _go(["build", "-ldflags=-s -w", "-o", str(target), package], cwd=module)


def _go_install(out: Path, packages: Sequence[str]) -> None:
    _go(["install", *packages], cwd=out, GOBIN=str(out))


def _go(arguments: Sequence[str], *, cwd: Path, **environment: str) -> str:
    return builds.run([require("go", "golang, or Go itself"), *arguments], cwd=cwd, **environment)


def main() -> None:
    """`python -m tests.support.cluster.binaries`: builds what is not built yet, or says what is missing."""
    try:
        programs = [*_paths(control_plane()), *_paths(mesh()), helm()]
    except MissingError as e:
        sys.exit(f"no mesh can be brought up here: {e}")
    print(f"{len(programs)} programs and sources are ready, the built ones in {cache()}")


def _paths(found: ControlPlaneBinaries | MeshBinaries) -> list[Path]:
    return [getattr(found, field.name) for field in fields(found)]


if __name__ == "__main__":
    main()
