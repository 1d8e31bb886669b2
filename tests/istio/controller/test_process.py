"""The controller as the process that its pod runs."""

from __future__ import annotations

import asyncio
import signal
import sys

import yaml

from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from hairpin.ports import free_ports
from tests.support.envoy import eventually


async def test_it_serves_until_sigterm_and_gives_its_lease_back(installed, shop, laptop, tmp_path):
    ports = free_ports()
    listen = {"api": f"127.0.0.1:{next(ports)}", "xds": f"127.0.0.1:{next(ports)}"}
    settings = tmp_path / "controller.yaml"
    settings.write_text(yaml.safe_dump({"namespaces": [shop], "listen": listen}))
    kubeconfig = installed.kubeconfig(namespace=SYSTEM)
    command = ["-m", "xds_server", "--kubernetes", "--config", str(settings), "--kubeconfig", str(kubeconfig)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    try:
        await laptop.claim("alice-1")
        await laptop.phase("alice-1", "Pending", seconds=30)

        async def holder():
            return (
                ((await installed.client.get("Lease", CONTROLLER, SYSTEM)) or {}).get("spec", {}).get("holderIdentity")
            )

        assert await holder()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            _, log = await process.communicate()
        assert process.returncode == 0 and b"Traceback" not in log, log.decode()
        assert not await holder()
    finally:
        if process.returncode is None:
            process.kill()
            await eventually(lambda: process.returncode is not None, what="its end")
