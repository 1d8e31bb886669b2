"""What an agent is told: one YAML file, and where it runs from the environment.

name: hairpin-agent-0             # this replica; a stable name, as a StatefulSet gives; {env: POD_NAME} takes a variable
namespace: default                # likewise
directory: /run/hairpin           # its own: sockets, keys and Envoy's files; 0700
role: steer                       # or egress: it takes laptops' connections alone, and has no steer and tunnel
controlPlane:
  api: https://127.0.0.1:9100     # certificates, reports and policies; the host may be a name
  xds: 127.0.0.1:9101             # who may use the egress; likewise
  authority: /etc/hairpin/ca.pem  # what both must be signed by; read anew when it changes, waited for if it is missing
  tokenFile: /etc/hairpin/token   # read at each use
listeners:
  steer: 127.0.0.1:9201           # plain HTTP from the agent's own sidecar
  tunnel: 0.0.0.0:9202            # laptops' tunnels
  egress: 0.0.0.0:9203            # laptops' connections into the mesh
  ready: 127.0.0.1:9204           # HTTP /ready
mesh:                             # where the sidecar takes names by address; leave out where it intercepts
  outbound: 127.0.0.1:9205
  services: [checkout, inventory]
egress:                           # beside what is never allowed
  forbidden: [10.0.0.0/8]
  forbiddenHosts: [db.prod]       # whatever these names lead to
  denyApiServer: true             # KUBERNETES_SERVICE_HOST, HOST_IP and HOST_IPS, where they are set
requestLog:
  perSecond: 100                  # reports of requests; more are left out
  report: true                    # to the control plane too; laptops that listen get them in any case
drainSeconds: 1                   # from "not ready" until it takes no more; again for what is under way
# POD_IP and POD_IPS, where set, are the agent's own addresses: nobody reaches them. Without `mesh`, as in a pod, every
# address of its network namespace is, and those of the Service hairpin-agent: who gets there could pass for a sidecar.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from agent.addresses import networks_of
from agent.fields import https_url, is_name, networks, number, socket_address, text
from hairpin.envoy.config import Identity
from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.egress import Network
from hairpin.model.mesh import AGENT, SocketAddress
from hairpin.model.reader import Reader

_API_SERVER = "KUBERNETES_SERVICE_HOST"
_NODE = ("HOST_IP", "HOST_IPS")
_POD = ("POD_IP", "POD_IPS")


JUDGE_SOCKET, LAPTOPS_SOCKET = "judge.sock", "laptops.sock"


class Role(StrEnum):
    """What an agent is there for."""

    STEER = "steer"
    """Steered requests, and connections out."""
    EGRESS = "egress"
    """Connections out alone, under a target's service account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """How an agent reaches xds_server."""

    api: str
    """The URL of its HTTP API."""
    xds: SocketAddress
    """Its host may be a name."""
    authority: Path
    token_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The file's content. Times are in seconds."""

    name: str
    namespace: str
    directory: Path
    control_plane: ControlPlane
    steer: SocketAddress | None
    """None, like `tunnel`, in role `egress`."""
    tunnel: SocketAddress | None
    egress: SocketAddress
    ready: SocketAddress
    mesh_outbound: SocketAddress | None = None
    services: tuple[str, ...] = ()
    forbidden: Mapping[Network, str] = field(default_factory=dict)
    """Networks that nobody reaches, each with the reason."""
    forbidden_hosts: tuple[str, ...] = ()
    requests_per_second: int = 100
    report_requests: bool = True
    drain_seconds: float = 1.0
    sockets: Path | None = None
    """Where its unix sockets are, if `directory` has too long a path for them."""

    @property
    def role(self) -> Role:
        """What it is there for."""
        return Role.EGRESS if self.steer is None else Role.STEER

    @property
    def identity(self) -> Identity:
        """The files of the tunnel's certificate."""
        return Identity(self.directory / "identity")

    @property
    def judge_socket(self) -> Path:
        """Where Envoy asks which address a connection may have."""
        return (self.sockets or self.directory) / JUDGE_SOCKET

    @property
    def laptops_socket(self) -> Path:
        """Where Envoy passes laptops' questions on to the agent."""
        return (self.sockets or self.directory) / LAPTOPS_SOCKET

    @property
    def request_log_rate(self) -> Path:
        """The file that bounds the request log."""
        return self.directory / "request-log-rate.json"

    @property
    def mesh_domains(self) -> tuple[str, ...]:
        """The names that go to the sidecar, as Kubernetes writes them short and in full."""
        if self.mesh_outbound is None:
            return ()
        suffixes = ("", f".{self.namespace}", f".{self.namespace}.svc")
        short = [service + suffix for service in self.services for suffix in suffixes]
        return (*short, f"*.{self.namespace}.svc.cluster.local")


def read_settings(path: Path, environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """The settings in a file.

    Raises:
        NotFoundError: there is no such file.
        InvalidFieldError: it is no YAML, or a field is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise NotFoundError(f"--config: {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidFieldError("--config", str(path), f"is no YAML: {error}", "correct it") from error
    return settings_of(document, environment)


def settings_of(document: Any, environment: Mapping[str, str] | None = None) -> AgentSettings:
    """The settings in a parsed document; every field that is wrong or unknown is an InvalidFieldError.

    Args:
        document: what was parsed.
        environment: the environment's variables; none by default.
    """
    variables = environment or {}
    top = Reader(document, "")
    plane = top.section("controlPlane", {})
    listeners = top.section("listeners", {})
    mesh = top.section("mesh", {})
    egress = top.section("egress", {})
    log = top.section("requestLog", {})
    role = _role(top)
    forbidden, hosts = _forbidden(egress, variables)
    namespace = text(top, "namespace", variables)
    own = () if mesh.names else (f"{AGENT}.{namespace}.svc",)
    settings = AgentSettings(
        name=text(top, "name", variables),
        namespace=namespace,
        directory=Path(top.text("directory")),
        control_plane=ControlPlane(
            api=https_url(plane, "api"),
            xds=socket_address(plane, "xds", names=True),
            authority=Path(plane.text("authority")),
            token_file=Path(plane.text("tokenFile")),
        ),
        steer=_steering(listeners, "steer", role),
        tunnel=_steering(listeners, "tunnel", role),
        egress=socket_address(listeners, "egress"),
        ready=socket_address(listeners, "ready"),
        mesh_outbound=socket_address(mesh, "outbound") if mesh.names else None,
        services=tuple(mesh.texts("services", [])),
        forbidden=forbidden,
        forbidden_hosts=(*own, *hosts),
        requests_per_second=int(number(log, "perSecond", 100, 1, 100_000)),
        report_requests=log.flag("report", default=True),
        drain_seconds=number(top, "drainSeconds", 1.0, 0, 3600),
    )
    for reader in (top, plane, listeners, mesh, egress, log):
        reader.finish()
    return settings


def _role(top: Reader) -> Role:
    value = top.take("role", Role.STEER.value)
    if value not in tuple(Role):
        raise InvalidFieldError("role", value, "is no role", f"use {Role.STEER} or {Role.EGRESS}")
    return Role(value)


def _steering(listeners: Reader, field: str, role: Role) -> SocketAddress | None:
    if role is Role.STEER:
        return socket_address(listeners, field)
    if value := listeners.take(field, None):
        problem = "has no meaning in role egress, which takes no requests"
        raise InvalidFieldError(listeners.path(field), value, problem, "leave it out, or use role steer")
    return None


def _forbidden(egress: Reader, variables: Mapping[str, str]) -> tuple[dict[Network, str], tuple[str, ...]]:
    """Networks with their reasons, and names: the file's and the environment's."""
    found = networks_of(networks(egress, "forbidden"))
    hosts = egress.texts("forbiddenHosts", [])
    for index, host in enumerate(hosts):
        if not is_name(host):
            where = f"{egress.path('forbiddenHosts')}[{index}]"
            raise InvalidFieldError(where, host, "is no host's name", "write a name; addresses go into forbidden")
    found |= _from_environment(variables, _POD, "is the agent's own address")
    if egress.flag("denyApiServer", default=True):
        found |= _from_environment(variables, _NODE, "is the agent's node")
        server = variables.get(_API_SERVER, "")
        if is_name(server):
            hosts = [*hosts, server]
        else:
            found |= _from_environment(variables, (_API_SERVER,), "is the API server")
    return found, tuple(hosts)


def _from_environment(variables: Mapping[str, str], names: tuple[str, ...], reason: str) -> dict[Network, str]:
    """Addresses in variables, with commas between them."""
    found: dict[Network, str] = {}
    for name in names:
        value = variables.get(name, "")
        try:
            found |= networks_of((text.strip() for text in value.split(",")), reason)
        except ValueError:
            raise InvalidFieldError(name, value, "holds no IP addresses", "correct or unset the variable") from None
    return found
