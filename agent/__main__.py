"""`python -m agent --config FILE`.

Exit codes: 0 after SIGTERM or SIGINT, else those of `hairpin.errors`. A second signal ends it at once (130).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from agent.program import Agent
from agent.settings import AgentSettings, read_settings
from hairpin import __version__
from hairpin.errors import HairpinError

_INTERRUPTED = 130


def main() -> int:
    """Run an agent; returns its exit code."""
    parser = argparse.ArgumentParser(prog="agent", description="hairpin's agent: one replica, with its Envoy.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the settings, in YAML")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    errors: list[HairpinError] = []
    try:
        asyncio.run(_run(read_settings(arguments.config)))
    except* HairpinError as group:
        errors = _flat(group)
    for error in errors:
        sys.stderr.write(f"agent: {error}\n")
    return errors[0].exit_code if errors else 0


async def _run(settings: AgentSettings) -> None:
    agent = Agent(settings)
    stopping = False

    def on_signal() -> None:
        nonlocal stopping
        if stopping:
            os._exit(_INTERRUPTED)  # Envoy ends with its parent
        stopping = True
        agent.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await agent.run()


def _flat(group: BaseExceptionGroup[HairpinError]) -> list[HairpinError]:
    errors: list[HairpinError] = []
    for error in group.exceptions:
        errors.extend(_flat(error) if isinstance(error, BaseExceptionGroup) else [error])
    return errors


if __name__ == "__main__":
    sys.exit(main())
