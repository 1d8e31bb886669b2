"""The programs of `programs/`, built or installed once with their libraries at pinned versions, in ~/.cache/hairpin/programs.

What is built in the cache folder gets its lock there: lock files of npm and cargo name their registries. `python -m
tests.laptop.builds` builds all.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import builds
from tests.support.builds import MissingError, require

SOURCES = Path(__file__).parent / "programs"
AIR = "github.com/air-verse/air@v1.67.4"
DELVE = "github.com/go-delve/delve/cmd/dlv@v1.27.2"
MBEDTLS = "2.28.15"
"""Mbed TLS for the musl binaries, from the sources inside a crate: there is no package of it that is built for musl."""
_AT_ONCE = 2
"""Parts that are built: one may wait for what it downloads."""


def cache() -> Path:
    """Where they are kept, a folder for each part and version."""
    return builds.cache("programs")


def part(name: str) -> Path:
    """The folder of one part, built if it is not there.

    Raises:
        MissingError: a compiler or an interpreter is missing.
    """
    sources = sorted(path for path in (SOURCES / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    build, more = _PARTS[name]
    folder = cache() / f"{name}-{builds.fingerprint(sources, SOURCES, *more)}"
    return builds.built(folder, name, build)


def _python(out: Path) -> None:
    _pip(SOURCES / "python" / "requirements.txt", out)
    for source in (SOURCES / "python").glob("*.py"):
        shutil.copy(source, out)


def _node(out: Path) -> None:
    npm = require("npm", "npm")
    shutil.copytree(SOURCES / "node", out, dirs_exist_ok=True)
    builds.run([npm, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=out)


def _servers(out: Path) -> None:
    _pip(SOURCES / "servers" / "requirements.txt", out)
    shutil.copy(SOURCES / "servers" / "package.json", out)
    npm = require("npm", "npm")
    builds.run([npm, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=out)


def _go(out: Path) -> None:
    go = require("go", "golang, or Go itself")
    builds.run(
        [go, "build", "-ldflags=-s -w", "-o", out, "./http", "./grpc", "./udp"], cwd=SOURCES / "go", CGO_ENABLED="0"
    )


def _delve(out: Path) -> None:
    go = require("go", "golang, or Go itself")
    builds.run([go, "install", DELVE], cwd=out, GOBIN=str(out), GOFLAGS="")


def _air(out: Path) -> None:
    go = require("go", "golang, or Go itself")
    builds.run([go, "install", "-ldflags=-s -w", AIR], cwd=out, GOBIN=str(out), GOFLAGS="", CGO_ENABLED="0")


def _java(out: Path) -> None:
    builds.run([require("javac", "openjdk-17-jdk-headless"), "-d", out, *(SOURCES / "java").glob("*.java")], cwd=out)


def _rust(out: Path) -> None:
    cargo = require("cargo", "cargo, or Rust itself")
    work = out / "build"
    shutil.copytree(SOURCES / "rust", work)
    builds.run([cargo, "build", "--release", "--quiet"], cwd=work, CARGO_TARGET_DIR=str(work / "target"))
    shutil.copy(work / "target" / "release" / "fetch", out / "fetch")
    shutil.rmtree(work)


def _musl(out: Path) -> None:
    """One source, linked twice: `fetch-1.2.3` with Debian's musl, and `fetch-1.2.5` with that which Zig brings as source.

    musl's ABI is stable, so what Mbed TLS is compiled to goes with either, and the minute that Zig would take for it is saved.
    """
    compiler, cargo = require("musl-gcc", "musl-tools"), require("cargo", "cargo, or Rust itself")
    work = out / "build"
    (work / "src").mkdir(parents=True)
    (work / "src" / "lib.rs").touch()
    dependency = f'mbedtls-sys-auto = {{ version = "={MBEDTLS}", default-features = false }}'
    (work / "Cargo.toml").write_text(
        f'[package]\nname = "sources"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{dependency}\n'
    )
    metadata = json.loads(builds.run([cargo, "metadata", "--format-version", "1", "--quiet"], cwd=work))
    crate = next(found for found in metadata["packages"] if found["name"] == "mbedtls-sys-auto")
    vendor = Path(crate["manifest_path"]).parent / "vendor"
    flags = ["-O1", f"-I{vendor / 'include'}", f"-I{vendor / 'library'}"]
    builds.run([compiler, *flags, "-c", *sorted((vendor / "library").glob("*.c"))], cwd=work)
    source = SOURCES / "musl" / "fetch.c"
    objects = sorted(work.glob("*.o"))
    builds.run([compiler, *flags, "-static", "-o", out / "fetch-1.2.3", source, *objects], cwd=work)
    _pip(SOURCES / "musl" / "requirements.txt", work)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-musl", "-static"]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(work / "zig"), "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    place = {"PYTHONPATH": str(work / "site-packages"), **caches}
    builds.run([*zig, *flags, "-o", out / "fetch-1.2.5", source, *objects], cwd=work, **place)
    shutil.rmtree(work)


def _pip(lock: Path, out: Path) -> None:
    """What a lock names, in `site-packages` there."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    builds.run([*pip, "--require-hashes", "--requirement", lock, "--target", out / "site-packages"], cwd=out)


_PARTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "python": (_python, (sys.version.split()[0],)),
    "node": (_node, ()),
    "servers": (_servers, (sys.version.split()[0],)),
    "go": (_go, ()),
    "delve": (_delve, (DELVE,)),
    "air": (_air, (AIR,)),
    "java": (_java, ()),
    "rust": (_rust, ()),
    "musl": (_musl, (MBEDTLS,)),
}
"""How each is built, and what beside its sources decides what comes out."""


def build_all() -> list[Path]:
    """The folders of all parts, built where they are not there.

    Raises:
        MissingError: something that they are built with, or run by, is missing.
    """
    require("curl", "curl")
    require("java", "openjdk-17-jdk-headless")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(part, _PARTS))


def main() -> None:
    """Builds what is not built yet, or says what is missing."""
    try:
        folders = build_all()
    except MissingError as error:
        sys.exit(f"not all programs can be built here: {error}")
    print(f"{len(folders)} kinds of programs are ready in {cache()}")


if __name__ == "__main__":
    main()
