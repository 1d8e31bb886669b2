"""`python -m tests.support.intercepted_main SETTINGS COMMAND...`: the command under supervision; its exit code.

SETTINGS is JSON: gateway, a port; rules, pairs of action and text; refused, reasons by target; udp; names, addresses by name.
Lines for the user go to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from ipaddress import ip_address

from local_proxy.child import find_command
from local_proxy.intercept.launch import launched
from local_proxy.intercept.machine import Machine, UdpPolicy
from local_proxy.intercept.names import Names
from local_proxy.intercept.supervisor import Ports, Supervisor
from local_proxy.rules import Action, Rules, parse_rule


async def main() -> int:
    settings, command = json.loads(sys.argv[1]), sys.argv[2:]
    names = Names()
    for name, addresses in settings.get("names", {}).items():
        names.remember(name, map(ip_address, addresses))
    machine = Machine(
        Rules(tuple(parse_rule(Action(action), text) for action, text in settings.get("rules", ()))),
        names,
        frozenset(),
        UdpPolicy(settings.get("udp", "refuse")),
    )
    refused = settings.get("refused", {})
    loop = asyncio.get_running_loop()

    def ask(target, name, answered):
        # As the agent: after a while, and from another thread.
        loop.call_soon_threadsafe(
            loop.call_later, settings.get("asked_seconds", 0.01), answered, refused.get(target, "")
        )

    def tell(line):
        os.write(2, f"{line}\n".encode())

    async with launched() as waiting:
        ports = Ports(settings["gateway"], settings.get("dns", 9), settings.get("dns_tcp", 9))
        supervisor = Supervisor(
            waiting.listener, waiting.threads, waiting.architecture, machine, ports, ask=ask, tell=tell
        )
        supervisor.start()
        try:
            process = await waiting.execute(find_command(command, os.environ), command, os.environ)
            if settings.get("killed"):
                await asyncio.sleep(settings["killed"])
                os.kill(os.getpid(), signal.SIGKILL)
            return await process.wait()
        finally:
            supervisor.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()) % 256)
