"""Ports of pods by hairpin's own port-forward, by `kubectl port-forward`, and by the network: latency and bytes.

Measured from a machine without a sidecar to a pod without one, in turns. The pod echoes a word, takes bytes, or sends them.
What measures is a process of its own in that machine's network namespace: `python -m bench.portforward ARGUMENTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from statistics import median, quantiles
from typing import Any

from hairpin.errors import HairpinError

NAMESPACE, POD = "forwards", "echo"
ECHO, SINK, SOURCE = 7000, 7001, 7002
MEGABYTE = 1_000_000
WAYS = ("direct", "hairpin", "kubectl")
_WORD = b"x" * 100
_SERVER = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def sink(reader, writer):
    left = int(await reader.readline())
    while left and (data := await reader.read(min(left, 1 << 18))):
        left -= len(data)
    writer.write(b"!")
    writer.close()
async def source(reader, writer):
    left, block = int(await reader.readline()), b"x" * (1 << 18)
    while left:
        part = block[:left]
        writer.write(part)
        await writer.drain()
        left -= len(part)
    writer.close()
async def main():
    for port, what in ((7000, echo), (7001, sink), (7002, source)):
        await asyncio.start_server(what, "0.0.0.0", port)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def measure(cluster: Any, rounds: int, words: int = 300, megabytes: int = 40) -> dict[str, Any]:
    """All three ways.

    Args:
        cluster: a mesh under test.
        rounds: over all ways.
        words: round trips per way and round, one after the other.
        megabytes: per way, direction and round.
    """
    client = cluster.client
    await client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    await client.wait_for("ServiceAccount", "default", bool, namespace=NAMESPACE)
    probe = {"tcpSocket": {"port": ECHO}, "periodSeconds": 1}
    container = {"name": "app", "image": "hairpin.test/python:1", "args": ["-c", _SERVER], "readinessProbe": probe}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    metadata = {"name": POD, "namespace": NAMESPACE, "labels": {"app": POD}}
    await client.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    await client.wait_for("Pod", POD, _is_ready, namespace=NAMESPACE, seconds=60)
    pod = await cluster.pod(NAMESPACE, f"app={POD}")
    arguments = {
        "kubeconfig": str(cluster.inside_kubeconfig()),
        "kubectl": str(cluster.plane.binaries.kubectl),
        "ip": pod.ip,
        "rounds": rounds,
        "words": words,
        "bytes": megabytes * MEGABYTE,
    }
    process = await asyncio.create_subprocess_exec(
        "nsenter",
        f"--net={cluster.outside.network}",
        "--",
        *(sys.executable, "-m", "bench.portforward", json.dumps(arguments)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    await client.delete("Namespace", NAMESPACE)
    if process.returncode != 0:
        raise HairpinError("port-forwards could not be measured")
    result: dict[str, Any] = json.loads(output)
    return result


def table(result: dict[str, Any]) -> str:
    """As text: medians of the rounds, ratios to the direct way of the same round."""
    lines = [
        "",
        f"{'port-forward':<14} {'connect ms':>11} {'p50 µs':>8} {'p99 µs':>8} {'up MB/s':>16} {'down MB/s':>16}",
    ]
    for way, row in result.items():
        rates = [f"{row[name]['median']:.0f} ({row[f'{name} ratio']['median']:.2f})" for name in ("up", "down")]
        times = f"{row['connect']['median'] * 1e3:>11.1f} {row['p50']['median'] * 1e6:>8.0f} {row['p99']['median'] * 1e6:>8.0f}"
        lines.append(f"{way:<14} {times} {rates[0]:>16} {rates[1]:>16}")
    return "\n".join(lines) + "\n"


def _is_ready(found: dict[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


# In the laptop's network namespace


async def _measure(arguments: dict[str, Any]) -> dict[str, Any]:
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    async with _ways(arguments) as ways:
        for number in range(arguments["rounds"]):
            turn = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
            for way in turn:
                samples[way].append(await _sample(ways[way], arguments["words"], arguments["bytes"]))
    return {way: _summary(found, samples["direct"]) for way, found in samples.items()}


Addresses = dict[int, tuple[str, int]]


@contextlib.asynccontextmanager
async def _ways(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Addresses]]:
    from hairpin.kubernetes.api import connect  # noqa: PLC0415
    from hairpin.kubernetes.portforward import forward  # noqa: PLC0415

    ports = (ECHO, SINK, SOURCE)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(connect(kubeconfig=arguments["kubeconfig"]))
        own = {port: await stack.enter_async_context(forward(api, NAMESPACE, POD, port)) for port in ports}
        kubectl = {port: await stack.enter_async_context(_kubectl(arguments, port)) for port in ports}
        yield {"direct": {port: (arguments["ip"], port) for port in ports}, "hairpin": own, "kubectl": kubectl}


@contextlib.asynccontextmanager
async def _kubectl(arguments: dict[str, Any], port: int) -> AsyncIterator[tuple[str, int]]:
    process = await asyncio.create_subprocess_exec(
        *(arguments["kubectl"], "--kubeconfig", arguments["kubeconfig"]),
        *("port-forward", "-n", NAMESPACE, f"pod/{POD}", f":{port}"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield "127.0.0.1", int(line.split(" -> ")[0].rpartition(":")[2])
    finally:
        process.terminate()
        await process.wait()


async def _sample(addresses: Addresses, words: int, size: int) -> dict[str, float]:
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection(*addresses[ECHO])
    await _echo(reader, writer)
    connected = time.perf_counter() - begin
    trips = []
    for _ in range(words):
        begin = time.perf_counter()
        await _echo(reader, writer)
        trips.append(time.perf_counter() - begin)
    writer.close()
    cuts = quantiles(trips, n=100)
    up, down = await _up(addresses[SINK], size), await _down(addresses[SOURCE], size)
    return {"connect": connected, "p50": cuts[49], "p99": cuts[98], "up": up, "down": down}


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_WORD)
    await reader.readexactly(len(_WORD))


async def _up(address: tuple[str, int], size: int) -> float:
    reader, writer = await asyncio.open_connection(*address)
    block = b"x" * (1 << 18)
    begin, left = time.perf_counter(), size
    writer.write(f"{size}\n".encode())
    while left:
        part = block[:left]
        writer.write(part)
        await writer.drain()
        left -= len(part)
    await reader.readexactly(1)
    writer.close()
    return size / MEGABYTE / (time.perf_counter() - begin)


async def _down(address: tuple[str, int], size: int) -> float:
    reader, writer = await asyncio.open_connection(*address, limit=1 << 18)
    begin, left = time.perf_counter(), size
    writer.write(f"{size}\n".encode())
    while left:
        data = await reader.read(1 << 18)
        if not data:
            raise HairpinError(f"{left} of {size} bytes did not come")
        left -= len(data)
    writer.close()
    return size / MEGABYTE / (time.perf_counter() - begin)


def _summary(found: list[dict[str, float]], direct: list[dict[str, float]]) -> dict[str, Any]:
    values = {name: [sample[name] for sample in found] for name in found[0]}
    for name in ("up", "down", "p50"):
        values[f"{name} ratio"] = [one[name] / other[name] for one, other in zip(found, direct, strict=True)]
    return {name: _spread(numbers) for name, numbers in values.items()}


def _spread(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "low": low, "high": high}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measure(json.loads(sys.argv[1])))))
