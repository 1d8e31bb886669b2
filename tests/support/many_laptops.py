"""Many sessions of an Istio mesh at once, each with a Session object, a certificate and a reverse tunnel of its own.

A hundred `hairpin run` would be a hundred Envoys and Pythons. Here one Envoy dials all tunnels: its configuration is what each
laptop's would be, put together. The requests of all end at one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from hairpin.certificates import new_key_and_request
from hairpin.envoy.binary import find_envoy
from hairpin.envoy.config import Config, Identity, write_identity
from hairpin.envoy.leash import leashed
from hairpin.files import write_private
from hairpin.kubernetes.api import connect
from hairpin.model.session import Phase, Session, SessionSpec
from hairpin.model.target import Target
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from local_proxy.kubernetes_sessions import KubernetesSessions
from tests.support.cluster.images import PYTHON
from tests.support.cluster.mesh import Cluster
from tests.support.istio_mesh import SHOP

AT_ONCE = 8
"""How many claims wait for the controller at the same time."""
LEASE_SECONDS = 60
PORT, EGRESS_PORT = 18090, 18091
SECONDS = 90.0
WHO = "many laptops"


class ManyLaptops:
    """Sessions of one developer, which come and go."""

    def __init__(self, cluster: Cluster, sessions: KubernetesSessions, folder: Path) -> None:
        self._cluster = cluster
        self._sessions = sessions
        self._folder = folder
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.claimed: list[Session] = []

    async def claim(self, environments: Sequence[str], target: str = "checkout:http") -> None:
        """A session for each environment, certified; without a tunnel and a process that listens nothing is steered yet."""
        async with asyncio.TaskGroup() as tasks:
            claims = [tasks.create_task(self._claim(environment, target)) for environment in environments]
        self.claimed = [claim.result() for claim in claims]

    async def _claim(self, environment: str, target: str) -> Session:
        key, request = new_key_and_request()
        spec = SessionSpec(
            target=Target.parse(target, SHOP),
            environment=environment,
            certificate_request=request,
            lease_seconds=LEASE_SECONDS,
        )
        async with self._gate:
            session = await self._sessions.create(spec)
        status = session.status
        identity = self._identity(session)
        chain, authority = status.certificate.encode(), status.certificate_authority.encode()
        write_identity(identity, key=key.encode(), chain=chain, authority=authority)
        return session

    async def listen(self, session: Session) -> None:
        """The session's process listens: with its tunnel up it is steered."""
        await self._sessions.update(session.name, local_port=PORT)

    async def end(self, session: Session) -> None:
        """One session's end."""
        await self._sessions.delete(session.name)
        self.claimed.remove(session)

    async def end_all(self) -> None:
        """Give everything back."""

        async def delete(session: Session) -> None:
            async with self._gate:
                await self._sessions.delete(session.name)

        async with asyncio.TaskGroup() as tasks:
            for session in self.claimed:
                tasks.create_task(delete(session))
        self.claimed = []

    async def reach(self, phase: Phase) -> None:
        """Wait until all are in this phase.

        Raises:
            TimeoutError: with the phases that there are.
        """
        names = {session.name for session in self.claimed}
        phases: dict[str, Phase] = {}
        try:
            async with asyncio.timeout(SECONDS):
                while set(phases) != names or set(phases.values()) != {phase}:
                    found = await self._sessions.list()
                    phases = {session.name: session.status.phase for session in found if session.name in names}
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            error.add_note(f"{phases}\n{(self._folder / 'envoy.log').read_text()[-2000:]}")
            raise

    @contextlib.asynccontextmanager
    async def tunnels(self) -> AsyncIterator[None]:
        """All claimed sessions' tunnels, from the laptop's place on the network, for the length of the block."""
        bootstrap = await self._configuration()
        network = f"--net={self._cluster.outside.network}"
        command = [str(find_envoy()), "--config-path", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
        app = self._cluster.laptop.command(PYTHON, "-m", "tests.support.cluster.app", WHO, env=_PORTS)
        with (self._folder / "envoy.log").open("wb") as log:
            async with _running(["nsenter", network, "--", *command, "-l", "warning"], log), _running(app, log):
                yield

    async def _configuration(self) -> Path:
        """Each laptop's own configuration, put together: the names of its agents' clusters and its tunnels differ."""
        clusters: dict[str, Config] = {}
        tunnels: list[Config] = []
        addresses = {pod.name: pod.ip for pod in await self._cluster.pods(SHOP)}
        for number, session in enumerate(self.claimed):
            agents = tuple(
                replace(agent, name=f"{agent.name}/{number}", host=addresses[agent.name])
                for agent in session.status.agents
            )
            settings = LaptopSettings(
                session=session.status.id,
                identity=self._identity(session),
                agents=agents,
                agent_identity=session.status.agent_identity,
                egress_port=EGRESS_PORT,
                directory=self._folder,
            )
            write_app(settings, ("127.0.0.1", PORT))
            write_tunnels(settings, {})
            clusters |= {cluster["name"]: cluster for cluster in _resources(settings.app_file)}
            tunnels += _resources(settings.tunnels_file)
        write_private(settings.app_file, json.dumps({"resources": list(clusters.values())}).encode())
        write_private(settings.tunnels_file, json.dumps({"resources": tunnels}).encode())
        bootstrap = self._folder / "envoy.json"
        write_private(bootstrap, json.dumps(laptop_bootstrap(settings)).encode())
        return bootstrap

    def _identity(self, session: Session) -> Identity:
        return Identity(self._folder / session.name)


_PORTS = {"PORT": str(PORT), "GRPC_PORT": "0"}


def _resources(file: Path) -> list[Config]:
    found: list[Config] = json.loads(file.read_text(), object_hook=_unwatched)["resources"]
    return found


def _unwatched(found: Config) -> Config:
    """A certificate read once: an Envoy has an inotify instance for each that it watches, and a user may have 128."""
    if secrets := found.pop("tls_certificate_sds_secret_configs", None):
        secret = Path(secrets[0]["sds_config"]["path_config_source"]["path"])
        file = {"filename": str(Identity(secret.parent).certificate)}
        found["tls_certificates"] = [{"certificate_chain": file, "private_key": file}]
    return found


@contextlib.asynccontextmanager
async def _running(command: Sequence[str], log: IO[bytes]) -> AsyncIterator[None]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*leashed(command, "pipe"), stdin=pipe, stdout=log, stderr=log)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def many_laptops(cluster: Cluster, folder: Path, user: str = "alice") -> AsyncIterator[ManyLaptops]:
    """A developer who may hold sessions in the shop, with none yet; those left are ended with the block."""
    async with connect(kubeconfig=str(cluster.kubeconfig(user, namespace=SHOP))) as api:

        async def whoami() -> str:
            return user

        made = ManyLaptops(cluster, KubernetesSessions(api, SHOP, whoami), folder)
        try:
            yield made
        finally:
            await made.end_all()
