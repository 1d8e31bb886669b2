"""Which control plane a command means: a Kubernetes cluster, or the embedded mesh."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hairpin.api import Developer, find_developer, read_developer
from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError
from hairpin.kubernetes.api import Api, connect
from hairpin.kubernetes.kinds import EGRESS_POLICIES, SELF_SUBJECT_REVIEWS
from hairpin.model.egress import POLICY_NAME, EgressPolicy
from hairpin.model.egress_json import egress_policy_from_json
from hairpin.model.environment import RoutingKey
from hairpin.model.names import check_label
from local_proxy.kubernetes_sessions import KubernetesSessions
from local_proxy.session_client import SessionClient
from local_proxy.session_store import ControlPlane, SessionStore

_DEFAULT_NAMESPACE = "default"
_ANSWER_SECONDS = 1.0
"""How long an embedded mesh may take to be noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The flags that say which control plane, as they were typed."""

    config: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False
    """All namespaces, where sessions are listed."""


@contextlib.asynccontextmanager
async def control_plane(
    connection: Connection, environ: Mapping[str, str] | None = None
) -> AsyncIterator[EmbeddedMesh | KubernetesCluster]:
    """The control plane that is meant, until the context ends.

    --context and --kubeconfig mean Kubernetes; --config and HAIRPIN_CONFIG an embedded mesh; without any, it is the
    embedded mesh on this machine if there is one, else the kubeconfig's current context.

    Raises:
        NotFoundError: there is none.
        HairpinError: its file can't be used.
    """
    environ = os.environ if environ is None else environ
    in_kubernetes = connection.kubeconfig is not None or connection.context is not None
    if in_kubernetes and connection.config is not None:
        flag = "--context" if connection.context is not None else "--kubeconfig"
        raise InvalidFieldError(
            "--config",
            connection.config,
            f"names an embedded mesh, and {flag} a Kubernetes cluster",
            "drop one of the two",
        )
    file = None if in_kubernetes else _embedded(connection, environ)
    if file is not None:
        yield EmbeddedMesh(file, connection)
        return
    async with connect(kubeconfig=connection.kubeconfig, context=connection.context) as api:
        yield KubernetesCluster(api, connection)


def _embedded(connection: Connection, environ: Mapping[str, str]) -> Path | None:
    """The embedded mesh's file; None where Kubernetes is meant."""
    if connection.config or environ.get("HAIRPIN_CONFIG"):
        return find_developer(connection.config, environ)
    try:
        file = find_developer(None, environ)
    except NotFoundError as error:
        if _has_kubeconfig(environ):
            return None
        raise NotFoundError(f"{error}; for a Kubernetes cluster name its --kubeconfig") from None
    # A mesh that is no more has left its file.
    return None if _has_kubeconfig(environ) and not _answers(read_developer(file)) else file


def _answers(developer: Developer) -> bool:
    url = urlsplit(developer.server)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), _ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _has_kubeconfig(environ: Mapping[str, str]) -> bool:
    # One that is named and missing is to be told by whoever reads it.
    return bool(environ.get("KUBECONFIG")) or (Path.home() / ".kube" / "config").is_file()


class EmbeddedMesh:
    """The mesh that `hairpin mesh up` runs, known by the file that it wrote for us.

    Args:
        file: that file; it is read again when the mesh may have been made anew.
        connection: the flags.
    """

    def __init__(self, file: Path, connection: Connection) -> None:
        self._file = file
        self._developer = read_developer(file)
        self.namespace = connection.namespace or _DEFAULT_NAMESPACE

    @property
    def developer(self) -> Developer:
        """How it is reached."""
        return self._developer

    @property
    def routing_key(self) -> RoutingKey:
        """What marks an environment's requests."""
        return self._developer.routing_key

    @property
    def title(self) -> str:
        """Nothing: there is one, and it was started here."""
        return ""

    async def user(self) -> str:
        """Who our token makes us."""
        return self._developer.user

    async def egress_policy(self) -> None:
        """There are none."""

    def open(self) -> AbstractAsyncContextManager[SessionStore]:
        """Its sessions."""
        return SessionClient(self._developer)

    def reread(self) -> bool:
        """Read the file again; whether it says something else."""
        try:
            developer = read_developer(self._file)
        except HairpinError:  # being written, or the mesh is down
            return False
        changed = developer != self._developer
        self._developer = developer
        return changed

    async def moved(self) -> bool:
        """Whether the file names another control plane, and that one is up."""
        before = self._developer
        if not self.reread():
            return False
        try:
            async with SessionClient(self._developer) as client:
                await client.version()
        except HairpinError:  # the file comes first
            self._developer = before
            return False
        return True


class KubernetesCluster:
    """A cluster, known by a kubeconfig's context.

    Args:
        api: its API server.
        connection: the flags.
    """

    def __init__(self, api: Api, connection: Connection) -> None:
        self.api = api
        self.namespace = check_label("--namespace", connection.namespace or api.namespace)
        self._everywhere = connection.everywhere
        self._user = ""

    @property
    def routing_key(self) -> None:
        """The controller's to know."""

    @property
    def title(self) -> str:
        """Where we are: it may be another cluster than one thinks."""
        where = "all namespaces" if self._everywhere else f"namespace {self.namespace}"
        return f"context {self.api.context} ({self.api.server}), {where}"

    async def user(self) -> str:
        """Who the API server says we are."""
        if not self._user:
            review = {"apiVersion": SELF_SUBJECT_REVIEWS.api_version, "kind": SELF_SUBJECT_REVIEWS.name}
            answer = await self.api.create(SELF_SUBJECT_REVIEWS, review)
            self._user = str(answer["status"]["userInfo"]["username"])
        return self._user

    async def egress_policy(self) -> EgressPolicy | None:
        """Our namespace's."""
        try:
            document = await self.api.get(EGRESS_POLICIES, POLICY_NAME, namespace=self.namespace)
        except HairpinError:  # none, or a role that may not look; each refusal comes with its reason anyway
            return None
        return egress_policy_from_json(document)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SessionStore]:
        """Its sessions of our namespace."""
        yield KubernetesSessions(self.api, self.namespace, self.user, everywhere=self._everywhere)

    def reread(self) -> bool:
        """A cluster stays itself."""
        return False

    async def moved(self) -> bool:
        """Likewise."""
        return False


def _check(embedded: EmbeddedMesh, cluster: KubernetesCluster) -> tuple[ControlPlane, ...]:
    # Held to the protocol by the type checker.
    return embedded, cluster
