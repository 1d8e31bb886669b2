"""What the node runs for each image, since there are no containers: programs of this machine, bound to their usual places."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hairpin.envoy.binary import find_envoy
from tests.support.cluster.binaries import MeshBinaries

ROOT = Path(__file__).parents[3]
PYTHON_HOME = "/mnt/python"
SITE_PACKAGES = "/mnt/site-packages"
SOURCE = "/mnt/hairpin"
PYTHON = f"{PYTHON_HOME}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON_ENVIRONMENT = {
    "PYTHONPATH": f"{SOURCE}:{SITE_PACKAGES}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": f"{PYTHON_HOME}/lib",  # else a Python that was moved may find another one's library
}

_BOOTSTRAP = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"

Image = dict[str, Any]


def python_binds() -> dict[Path, str]:
    """Python, its packages and hairpin's source, at places that every user may enter, wherever they are on this machine."""
    return {Path(sys.base_prefix): PYTHON_HOME, Path(sysconfig.get_path("purelib")): SITE_PACKAGES, ROOT: SOURCE}


def images(programs: MeshBinaries) -> dict[str, Image]:
    """By the last element of an image's name, without its tag."""
    istio = programs.istio_source
    proxy = {
        programs.pilot_agent: "/usr/local/bin/pilot-agent",
        find_envoy(): "/usr/local/bin/envoy",
        istio / "tools/packaging/common/envoy_bootstrap.json": _BOOTSTRAP,
    }
    return {
        "proxyv2": _image("/usr/local/bin/pilot-agent", binds=proxy, env={"ISTIO_BOOTSTRAP": _BOOTSTRAP}),
        "istio-echo": _image("/usr/local/bin/server", binds={programs.echo: "/usr/local/bin/server"}),
        "hairpin": _python("-m"),
        "app": _python("-m", "tests.support.cluster.app"),
        "python": _python(),
    }


def _python(*arguments: str) -> Image:
    return _image(PYTHON, *arguments, binds=python_binds(), env=PYTHON_ENVIRONMENT)


def _image(*entrypoint: str, binds: dict[Path, str], env: dict[str, str] | None = None) -> Image:
    bound = [{"from": str(source), "to": target} for source, target in binds.items()]
    return {"entrypoint": list(entrypoint), "binds": bound, "env": env or {}}
