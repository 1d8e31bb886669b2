"""How long one changed session takes to reach many proxies: `python -m bench.xds_fanout [--proxies 1000] [--rounds 7]`.

A real control plane over mutual TLS on loopback; the proxies are gRPC streams of another process, each with a connection of
its own, in step with one extension configuration. A round changes that resource and ends when the last proxy has
acknowledged it. The proxies share this machine's cores with the server, so the server's own CPU time is told as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import psutil

from hairpin.certificates import CertificateAuthority, new_key_and_request
from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.model.resource import Resource
from xds_server.model.snapshot import Snapshot
from xds_server.model.type_url import TypeUrl
from xds_server.protocol.frames import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds_server.server.ads import SERVICE, AdsServer, ProxyRegistry, ServerIdentity, server_credentials

GROUP, NAME, HOST = "group", "hairpin.match", "127.0.0.1"
RESOURCE_BYTES = 11_000
"""Some forty sessions' rules."""
RAMP = 40
"""So many connections are made at a time: opened all at once some of 2,000 never connected."""
SECONDS = 120.0


def measure(proxies: int = 1000, rounds: int = 7) -> dict[str, Any]:
    """Measure both variants of the protocol.

    Returns:
        The arguments, and for each variant: `seconds`, from the change to the last acknowledgement, and
        `serverCpuSeconds` of each round, the medians of both, `kilobytesPerStream` of resident memory and
        `connectSeconds` for all proxies.
    """
    result: dict[str, Any] = {"proxies": proxies, "rounds": rounds, "resourceBytes": RESOURCE_BYTES}
    for variant in ("delta", "sotw"):
        # A process for each: memory that was used once says nothing the second time.
        command = [sys.executable, "-m", "bench.xds_fanout", "--serve", variant]
        done = subprocess.run(
            [*command, "--proxies", str(proxies), "--rounds", str(rounds)], stdout=subprocess.PIPE, check=True
        )
        result[variant] = json.loads(done.stdout)
    sys.stdout.write(table(result))
    return result


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    what = f"One changed resource of {result['resourceBytes']} bytes to {result['proxies']} proxies"
    lines = [
        f"\n{what}, {result['rounds']} rounds, medians (smallest to largest)",
        f"  {'':6} {'to the last ACK':>26} {'CPU of the server':>26} {'memory/stream':>14} {'connecting all':>15}",
    ]
    for variant in ("delta", "sotw"):
        row = result[variant]
        lines.append(
            f"  {variant:6} {_spread(row['seconds']):>26} {_spread(row['serverCpuSeconds']):>26} "
            f"{row['kilobytesPerStream']:>11.0f} kB {row['connectSeconds']:>13.1f} s"
        )
    return "\n".join(lines) + "\n"


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


async def _measure(variant: str, proxies: int, rounds: int) -> dict[str, Any]:
    cache, registry = SnapshotCache(), ProxyRegistry()
    authority = CertificateAuthority.create("bench")
    server = _identity(authority)
    cache.set(GROUP, _snapshot(0))
    process = psutil.Process()
    async with AdsServer(
        cache=cache,
        registry=registry,
        authorize=lambda _identity, _node: GROUP,
        credentials=server_credentials(lambda: server),
    ) as ads:
        ads.ready.set()
        memory, begun = process.memory_info().rss, time.perf_counter()
        async with _proxies(ads.port, variant, proxies, authority):
            await _synced(registry, cache, proxies)
            connected = time.perf_counter() - begun
            grown = process.memory_info().rss - memory
            seconds, cpu = [], []
            for number in range(1, rounds + 1):
                await asyncio.sleep(0.3)  # what the round before left to do
                used, begun = time.process_time(), time.perf_counter()
                cache.set(GROUP, _snapshot(number))
                await _synced(registry, cache, proxies)
                seconds.append(time.perf_counter() - begun)
                cpu.append(time.process_time() - used)
    return {
        "seconds": seconds,
        "medianSeconds": statistics.median(seconds),
        "serverCpuSeconds": cpu,
        "medianServerCpuSeconds": statistics.median(cpu),
        "kilobytesPerStream": grown / proxies / 1000,
        "connectSeconds": connected,
    }


async def _synced(registry: ProxyRegistry, cache: SnapshotCache, proxies: int) -> None:
    snapshot = cache.get(GROUP)
    assert snapshot is not None
    type_url = TypeUrl.EXTENSION_CONFIG
    async with asyncio.timeout(SECONDS):
        await registry.wait_synced(GROUP, type_url, snapshot.version(type_url), proxies=proxies)


def _snapshot(number: int) -> Snapshot:
    body = f"{number:08}".encode() * (RESOURCE_BYTES // 8)
    return Snapshot.of([Resource.of(TypeUrl.EXTENSION_CONFIG, NAME, body)])


def _identity(authority: CertificateAuthority) -> ServerIdentity:
    key, request = new_key_and_request()
    chain = authority.sign(request, dns=("localhost",), lifetime=timedelta(hours=1)).chain
    return ServerIdentity(key=key, chain=chain, authorities=authority.certificate)


# The other process


@contextlib.asynccontextmanager
async def _proxies(port: int, variant: str, count: int, authority: CertificateAuthority) -> AsyncIterator[None]:
    identity = _identity(authority)
    told = {
        "port": port,
        "variant": variant,
        "count": count,
        "key": identity.key,
        "chain": identity.chain,
        "authority": identity.authorities,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.xds_fanout", "--as-proxies", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        await process.stdin.drain()
        yield
    finally:
        process.stdin.close()  # its cue to end
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 20)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _be_proxies() -> None:
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    credentials = grpc.ssl_channel_credentials(told["authority"].encode(), told["key"].encode(), told["chain"].encode())
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    ramp = asyncio.Semaphore(RAMP)
    proxy = _delta_proxy if told["variant"] == "delta" else _sotw_proxy
    async with contextlib.AsyncExitStack() as channels, asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(
                proxy(
                    await channels.enter_async_context(
                        grpc.aio.secure_channel(f"{HOST}:{told['port']}", credentials, options)
                    ),
                    f"proxy-{number}",
                    ramp,
                )
            )
            for number in range(told["count"])
        ]
        await asyncio.to_thread(sys.stdin.readline)
        for task in running:
            task.cancel()


async def _delta_proxy(channel: grpc.aio.Channel, node: str, ramp: asyncio.Semaphore) -> None:
    type_url = TypeUrl.EXTENSION_CONFIG
    stream = channel.stream_stream(f"/{SERVICE}/DeltaAggregatedResources")(wait_for_ready=True)
    first = DeltaDiscoveryRequest(type_url=type_url, node={"id": node}, resource_names_subscribe=[NAME])
    async with ramp:
        await stream.write(first.SerializeToString())
        response = await stream.read()
    while isinstance(response, bytes):
        nonce = DeltaDiscoveryResponse.FromString(response).nonce
        await stream.write(DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce).SerializeToString())
        response = await stream.read()


async def _sotw_proxy(channel: grpc.aio.Channel, node: str, ramp: asyncio.Semaphore) -> None:
    type_url = TypeUrl.EXTENSION_CONFIG
    stream = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")(wait_for_ready=True)
    first = DiscoveryRequest(type_url=type_url, node={"id": node}, resource_names=[NAME])
    async with ramp:
        await stream.write(first.SerializeToString())
        response = await stream.read()
    while isinstance(response, bytes):
        read = DiscoveryResponse.FromString(response)
        answer = DiscoveryRequest(
            type_url=type_url, resource_names=[NAME], response_nonce=read.nonce, version_info=read.version_info
        )
        await stream.write(answer.SerializeToString())
        response = await stream.read()


def main() -> None:
    """Measure and print, or be the proxies."""
    parser = argparse.ArgumentParser(prog="python -m bench.xds_fanout", description=__doc__.partition("\n")[0])
    parser.add_argument("--proxies", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--as-proxies", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=["delta", "sotw"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 100_000), most))  # a connection each
    if arguments.as_proxies:
        asyncio.run(_be_proxies())
    elif arguments.serve:
        numbers = asyncio.run(_measure(arguments.serve, arguments.proxies, arguments.rounds))
        sys.stdout.write(json.dumps(numbers))
    else:
        measure(arguments.proxies, arguments.rounds)


if __name__ == "__main__":
    main()
