"""Names as a pod's resolver completes them: the system's own look-up, against a name server that plays the cluster's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import sys

import pytest

from tests.support.agent_process import ROOT

SERVER = "127.77.{}.{}".format(*divmod(os.getpid() % 65536, 256))
"""This process' own, on loopback: name servers have one port."""
RESOLV_CONF = f"""nameserver {SERVER}
search shop.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 attempts:1 timeout:20
"""
ADDRESSES = {
    "inventory.shop.svc.cluster.local": ["10.96.0.1"],
    "db.prod.svc.cluster.local": ["10.96.0.2"],
    "headless.shop.svc.cluster.local": ["10.1.0.1", "10.1.0.2"],
    "api.example.com": ["192.0.2.1"],
}
ALIASES = {"alias.shop.svc.cluster.local": "api.example.com"}
BROKEN = "broken.example.com"
LOOK_UP = """
import asyncio, json, sys
from agent.resolve import system_resolve
async def main():
    found = {}
    for name in sys.argv[1:]:
        try:
            answer = await system_resolve(name)
            found[name] = [sorted(map(str, answer.addresses)), answer.name]
        except OSError as error:
            found[name] = error.errno
    print(json.dumps(found))
asyncio.run(main())
"""


class NameServer(asyncio.DatagramProtocol):
    """Answers for A records; of other kinds there are none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode().lower())
            at += length + 1
        question, (kind,) = data[12 : at + 5], struct.unpack("!H", data[at + 1 : at + 3])
        name = ".".join(labels)
        end = ALIASES.get(name, name)
        records = [self._record(name, 5, _encoded(end))] if name in ALIASES else []
        if kind == 1:
            records += [self._record(end, 1, socket.inet_aton(found)) for found in ADDRESSES.get(end, ())]
        code = 2 if name == BROKEN else 0 if end in ADDRESSES else 3
        head = data[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
        self._transport.sendto(head + question + b"".join(records), address)

    def _record(self, name: str, kind: int, value: bytes) -> bytes:
        return _encoded(name) + struct.pack("!HHIH", kind, 1, 5, len(value)) + value


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


async def look_up(directory, *names: str) -> dict:
    """What the agent makes of these names in a place with that resolv.conf."""
    conf = directory / "resolv.conf"
    conf.write_text(RESOLV_CONF)
    script = 'mount --bind "$1" "$(readlink -f /etc/resolv.conf)"; shift; exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", str(conf)),
        *(sys.executable, "-c", LOOK_UP, *names),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.root
async def test_names_are_completed_and_told_in_full(tmp_path):
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(NameServer, local_addr=(SERVER, 53))
    try:
        names = ["inventory", "inventory.shop", "inventory.shop.svc.cluster.local", "db.prod.svc", "headless", "alias"]
        found = await look_up(tmp_path, *names, "api.example.com", "nowhere", BROKEN)
    finally:
        transport.close()
    inventory = [["10.96.0.1"], "inventory.shop.svc.cluster.local"]
    assert found == {
        "inventory": inventory,
        "inventory.shop": inventory,
        "inventory.shop.svc.cluster.local": inventory,
        "db.prod.svc": [["10.96.0.2"], "db.prod.svc.cluster.local"],
        "headless": [["10.1.0.1", "10.1.0.2"], "headless.shop.svc.cluster.local"],
        "alias": [["192.0.2.1"], "api.example.com"],
        "api.example.com": [["192.0.2.1"], "api.example.com"],
        "nowhere": socket.EAI_NONAME,
        BROKEN: socket.EAI_AGAIN,
    }
