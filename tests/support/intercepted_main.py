"""`python -m tests.support.intercepted_main SETTINGS COMMAND...`: the command under interception; its exit code.

SETTINGS is JSON: gateway, a port; answers, where it says what became of a connection, for `--connect exact`; rules, pairs of action
and text; refused, reasons by target; asked_seconds, how long the agent takes to say so; names, addresses by name, or "virtual"; udp;
intercept; descriptors, how many this process may have (RLIMIT_NOFILE), soft and hard; files, texts by path, and mounts, the paths at
which they are mounted. Lines for the user go to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from local_proxy.child import run_child
from local_proxy.intercept import datagrams, strategy
from local_proxy.intercept.choices import Intercept, UdpPolicy
from local_proxy.intercept.dns_message import Code
from local_proxy.intercept.resolver import NO_SUCH_NAME, Meaning
from local_proxy.intercept.strategy import Mesh, interception
from local_proxy.mounts.plan import plan
from local_proxy.mounts.reasons import CannotMountError
from local_proxy.private import private_folder
from local_proxy.rule_text import parse_rule
from local_proxy.rules import Action, Rules
from local_proxy.signals import Signals
from local_proxy.target.paths import under


class Agent:
    """Stands for it."""

    def __init__(self, settings) -> None:
        self._names = settings.get("names", {})
        self._refused = settings.get("refused", {})
        self._seconds = settings.get("asked_seconds", 0.01)
        self.asked = Counter()

    async def meaning(self, name):
        self.asked[name] += 1
        await asyncio.sleep(0.01)
        match self._names.get(name):
            case None:
                return NO_SUCH_NAME
            case "virtual":
                return Meaning(virtual=True)
            case "fails":
                return Meaning(code=Code.SERVER_FAILURE)
            case addresses:
                return Meaning(tuple(map(ip_address, addresses)))

    async def refusal(self, target, name):
        await asyncio.sleep(self._seconds)
        return self._refused.get(target, "")


async def main() -> int:
    settings, command = json.loads(sys.argv[1]), sys.argv[2:]
    if limits := settings.get("descriptors"):
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(limits))
    strategy.REFUSAL_SECONDS = datagrams.RECEIVE_SECONDS = 60
    agent = Agent(settings)
    rules = Rules(tuple(parse_rule(Action(action), text) for action, text in settings.get("rules", ())))
    mesh = Mesh(
        gateway=settings["gateway"],
        answers=Path(settings["answers"]) if "answers" in settings else None,
        http_proxy=1,
        rules=rules,
        local_hosts=(),
        meaning=agent.meaning,
        refusal=agent.refusal,
    )
    choice = Intercept(settings.get("intercept", "on"))

    def tell(line):
        os.write(2, f"{line}\n".encode())

    mounts = settings.get("mounts")
    with Signals().installed() as signals, private_folder() as folder:
        async with interception(
            choice, mesh, udp=UdpPolicy(settings.get("udp", "refuse")), tell=tell, mounts=mounts is not None
        ) as way:
            if mounts is not None:
                await _mount(way, mounts, settings["files"], folder, tell)
            environment = way.environment({**os.environ, "FOLDER": str(folder)}, "alice-1", None)
            async with run_child(
                command, environment.variables, signals, folder=folder, warn=tell, start=way.start
            ) as child:
                code = await child.wait()
    if settings.get("asked"):
        tell(json.dumps(agent.asked))
    return code


async def _mount(way, mounts, files, folder, tell) -> None:
    for path, text in files.items():
        place = under(folder / "root", path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    planned = plan({path: under(folder / "root", path) for path in mounts}, [Path.cwd(), folder], user=os.geteuid())
    for path, why in planned.refused.items():
        tell(f"refused: {path}: {why}")
    (folder / "stage").mkdir()
    try:
        await way.mount(folder / "stage", planned)
    except CannotMountError as error:
        tell(f"not mounted: {error}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
