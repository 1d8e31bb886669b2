"""What an agent is told: one YAML file.

name: hairpin-agent-0             # this replica; a stable name, as a StatefulSet gives
namespace: default
directory: /run/hairpin           # its own: sockets, keys and Envoy's files; 0700
controlPlane:
  api: https://127.0.0.1:9100     # certificates and reports
  xds: 127.0.0.1:9101             # policies
  authority: /etc/hairpin/ca.pem  # what both must be signed by
  tokenFile: /etc/hairpin/token   # read at each use
listeners:
  steer: 127.0.0.1:9201           # plain HTTP from the agent's own sidecar
  tunnel: 0.0.0.0:9202            # laptops' tunnels
  egress: 0.0.0.0:9203            # laptops' connections into the mesh
  ready: 127.0.0.1:9204           # HTTP /ready
mesh:                             # where the sidecar takes names by address; leave out where it intercepts
  outbound: 127.0.0.1:9205
  services: [checkout, inventory]
egress:
  forbidden: [10.0.0.0/8]         # beside what is never allowed
requestLog:
  perSecond: 100                  # reports of requests; more are left out
drainSeconds: 1                   # from "not ready" until it takes no more; again for what is under way
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hairpin.envoy.config import Identity
from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.mesh import SocketAddress
from hairpin.model.reader import Reader

_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """How an agent reaches xds_server."""

    api: str
    """The URL of its HTTP API."""
    xds: SocketAddress
    authority: Path
    token_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The file's content. Times are in seconds."""

    name: str
    namespace: str
    directory: Path
    control_plane: ControlPlane
    steer: SocketAddress
    tunnel: SocketAddress
    egress: SocketAddress
    ready: SocketAddress
    mesh_outbound: SocketAddress | None = None
    services: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    requests_per_second: int = 100
    drain_seconds: float = 1.0

    @property
    def identity(self) -> Identity:
        """The files of the tunnel's certificate."""
        return Identity(self.directory / "identity")

    @property
    def judge_socket(self) -> Path:
        """Where Envoy asks which address a connection may have."""
        return self.directory / "judge.sock"

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


def read_settings(path: Path) -> AgentSettings:
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
    return settings_of(document)


def settings_of(document: Any) -> AgentSettings:
    """The settings in a parsed document; every field that is wrong or unknown is an InvalidFieldError."""
    top = Reader(document, "")
    plane = top.section("controlPlane", {})
    listeners = top.section("listeners", {})
    mesh = top.section("mesh", {})
    egress = top.section("egress", {})
    log = top.section("requestLog", {})
    settings = AgentSettings(
        name=top.text("name"),
        namespace=top.text("namespace"),
        directory=Path(top.text("directory")),
        control_plane=ControlPlane(
            api=_url(plane, "api"),
            xds=_address(plane, "xds"),
            authority=Path(plane.text("authority")),
            token_file=Path(plane.text("tokenFile")),
        ),
        steer=_address(listeners, "steer"),
        tunnel=_address(listeners, "tunnel"),
        egress=_address(listeners, "egress"),
        ready=_address(listeners, "ready"),
        mesh_outbound=_address(mesh, "outbound") if mesh.names else None,
        services=tuple(mesh.texts("services", [])),
        forbidden=tuple(_networks(egress, "forbidden")),
        requests_per_second=int(_number(log, "perSecond", 100, 1, 100_000)),
        drain_seconds=_number(top, "drainSeconds", 1.0, 0, 3600),
    )
    for reader in (top, plane, listeners, mesh, egress, log):
        reader.finish()
    return settings


def _address(reader: Reader, field: str) -> SocketAddress:
    value = reader.text(field)
    host, _, port = value.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number <= _LAST_PORT:
        raise InvalidFieldError(reader.path(field), value, "is not IP:PORT", "write it like 127.0.0.1:9202")
    return SocketAddress(host.strip("[]"), number)


def _url(reader: Reader, field: str) -> str:
    value = reader.text(field)
    if not value.startswith("https://"):
        raise InvalidFieldError(reader.path(field), value, "is not https", "write it like https://127.0.0.1:9100")
    return value.rstrip("/")


def _networks(reader: Reader, field: str) -> list[str]:
    networks = reader.texts(field, [])
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            where = f"{reader.path(field)}[{index}]"
            raise InvalidFieldError(where, network, "is no network", "write it like 10.0.0.0/8") from None
    return networks


def _number(reader: Reader, field: str, default: float, least: float, most: float) -> float:
    value = reader.take(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidFieldError(reader.path(field), value, "is out of range", f"use a number from {least} to {most}")
    return float(value)
