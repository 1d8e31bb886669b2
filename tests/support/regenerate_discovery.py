"""Writes discovery_pb2.py and discovery_pb2.pyi from discovery.proto: `python -m tests.support.regenerate_discovery`."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

PROTO = "xds_server/protocol/discovery.proto"
ROOT = Path(__file__).parents[2]


def regenerate(out: Path) -> None:
    """Write the generated files to `xds_server/protocol/` below `out`."""
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            f"--python_out={out}",
            f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
            f"--mypy_out=quiet:{out}",
            PROTO,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with {status} on {PROTO}")


if __name__ == "__main__":
    regenerate(ROOT)
