"""A program that runs one managed Envoy until it is killed: `python -m tests.support.envoy_owner PORT DIRECTORY LEASH`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hairpin.envoy.process import ManagedEnvoy
from tests.support.envoy import answer, http_listener, static


async def main(port: str, directory: str, leash: str) -> None:
    bootstrap = static(http_listener(int(port), answer("hello")))
    async with ManagedEnvoy("owned", bootstrap, Path(directory), leash=leash) as envoy:
        sys.stdout.write(f"{envoy.pid}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
