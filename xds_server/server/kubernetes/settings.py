"""The controller's settings: one YAML file, in the cluster the ConfigMap `hairpin-controller`.

namespaces: [shop, billing]          # whose workloads may be steered, and whose agents are ours; each was installed
trustDomain: cluster.local           # of the mesh's SPIFFE identities
clusterDomain: cluster.local         # of Services' names
rootNamespace: istio-system          # whose EnvoyFilters hold for the whole mesh
delivery: inbound                    # or outbound, waypoint-httproute, waypoint-virtualservice
routingKey: {header: x-env}          # of environments without an object of their own; or {baggage: …}, {tracestate: …}
listen:
  api: 0.0.0.0:9100                  # agents: certificates, reports, egress policy
  xds: 0.0.0.0:9101                  # agents' Envoys
agents:
  published:                         # where laptops reach agents; leave out: through the API server's port-forward
    host: "{pod}.agents.example.com" # {pod} and {namespace} are replaced
    tunnelPort: 9443
    egressPort: 9444
egress:
  forbidden: [10.0.0.0/20]           # networks that no session may reach, beside what is never allowed
sessions:
  shortestLease: 1                   # seconds
  longestLease: 3600
  startGrace: 30                     # how long a new session may take to bring its tunnel up
leaderElection:
  lease: hairpin-controller          # the Lease's name
  seconds: 5

Where it runs, `hairpin-system` as a rule, is `namespace`; in a pod it need not be given.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError
from hairpin.model.delivery import Delivery
from hairpin.model.environment import RoutingKey
from hairpin.model.mesh import SocketAddress
from hairpin.model.names import LABEL
from hairpin.model.reader import Reader
from hairpin.model.routing_key_json import routing_key_from_json
from hairpin.model.session_shapes import LEASE
from hairpin.yaml_file import load_yaml
from xds_server.delivery.istio.world import PublishedAddress

if TYPE_CHECKING:
    from pathlib import Path

_LAST_PORT = 65535
_LEASE_SECONDS = range(1, 61)
_API = SocketAddress("0.0.0.0", 9100)  # noqa: S104 # in a pod of its own
_XDS = SocketAddress("0.0.0.0", 9101)  # noqa: S104 # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The file's content."""

    namespaces: frozenset[str]
    namespace: str = ""
    """The controller's own; empty: the pod's."""
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    delivery: Delivery = Delivery.INBOUND
    routing_key: RoutingKey = field(default_factory=RoutingKey)
    api: SocketAddress = _API
    xds: SocketAddress = _XDS
    published: PublishedAddress | None = None
    forbidden: tuple[str, ...] = ()
    shortest_lease: timedelta = timedelta(seconds=1)
    longest_lease: timedelta = timedelta(hours=1)
    start_grace: timedelta = timedelta(seconds=30)
    lease_name: str = "hairpin-controller"
    lease_seconds: int = 5


def read_settings(path: Path) -> Settings:
    """The settings in a file.

    Raises:
        NotFoundError: there is no such file.
        InvalidFieldError: it is no YAML, or a field is wrong.
    """
    return settings_of(load_yaml(path))


def settings_of(document: Any) -> Settings:
    """The settings in a parsed document; every field that is wrong or unknown is an InvalidFieldError."""
    top = Reader(document, "")
    listen = top.section("listen", {})
    agents = top.section("agents", {})
    egress = top.section("egress", {})
    sessions = top.section("sessions", {})
    election = top.section("leaderElection", {})
    settings = Settings(
        namespaces=_namespaces(top),
        namespace=LABEL.read(top.take("namespace"), "namespace") if "namespace" in top.names else "",
        trust_domain=_domain(top, "trustDomain"),
        cluster_domain=_domain(top, "clusterDomain"),
        root_namespace=LABEL.read(top.take("rootNamespace", "istio-system"), "rootNamespace"),
        delivery=_delivery(top),
        routing_key=routing_key_from_json(top.take("routingKey", {"header": "x-env"})),
        api=_address(listen, "api", 9100),
        xds=_address(listen, "xds", 9101),
        published=_published(agents),
        forbidden=_networks(egress),
        shortest_lease=_seconds(sessions, "shortestLease", 1),
        longest_lease=_seconds(sessions, "longestLease", 3600),
        start_grace=_seconds(sessions, "startGrace", 30),
        lease_name=LABEL.read(election.take("lease", "hairpin-controller"), election.path("lease")),
        lease_seconds=_lease_seconds(election),
    )
    for reader in (top, listen, agents, egress, sessions, election):
        reader.finish()
    if settings.shortest_lease > settings.longest_lease:
        seconds = int(settings.shortest_lease.total_seconds())
        remedy = "make it the shorter one"
        raise InvalidFieldError(sessions.path("shortestLease"), seconds, "is longer than longestLease", remedy)
    return settings


def _namespaces(reader: Reader) -> frozenset[str]:
    names = [LABEL.read(name, f"namespaces[{index}]") for index, name in enumerate(reader.items("namespaces"))]
    return frozenset(names)


def _delivery(reader: Reader) -> Delivery:
    text = reader.text("delivery", Delivery.INBOUND)
    try:
        return Delivery(text)
    except ValueError:
        remedy = f"choose one of {', '.join(Delivery)}"
        raise InvalidFieldError(reader.path("delivery"), text, "is no delivery", remedy) from None


def _domain(reader: Reader, name: str) -> str:
    value = reader.text(name, "cluster.local")
    for label in value.split("."):
        try:
            LABEL.read(label, name)
        except InvalidFieldError:
            problem, remedy = "is not a domain", "write it like cluster.local, without a dot at its end"
            raise InvalidFieldError(reader.path(name), value, problem, remedy) from None
    return value


def _address(reader: Reader, name: str, port: int) -> SocketAddress:
    value = reader.text(name, f"0.0.0.0:{port}")
    host, _, number = value.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        found = int(number)
    except ValueError:
        found = 0
    if not 0 < found <= _LAST_PORT:
        raise InvalidFieldError(reader.path(name), value, "is not IP:PORT", f"write it like 0.0.0.0:{port}")
    return SocketAddress(host.strip("[]"), found)


def _published(agents: Reader) -> PublishedAddress | None:
    if "published" not in agents.names:
        return None
    reader = agents.section("published", {})
    host = reader.text("host")
    try:
        shown = host.format(pod="pod-0", namespace="namespace")
    except (KeyError, IndexError, ValueError):
        shown = ""
    if not shown or any(sign in shown for sign in " /:{}"):
        remedy = "write a name or an address; {pod} and {namespace} are replaced"
        raise InvalidFieldError(reader.path("host"), host, "is no host", remedy)
    address = PublishedAddress(
        host=host, tunnel_port=reader.port("tunnelPort", 9443), egress_port=reader.port("egressPort", 9444)
    )
    reader.finish()
    return address


def _networks(reader: Reader) -> tuple[str, ...]:
    networks = reader.texts("forbidden", [])
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            where = f"{reader.path('forbidden')}[{index}]"
            raise InvalidFieldError(where, network, "is no network", "write it like 10.0.0.0/8") from None
    return tuple(networks)


def _seconds(reader: Reader, name: str, default: int) -> timedelta:
    return timedelta(seconds=LEASE.read(reader.take(name, default), reader.path(name)))


def _lease_seconds(reader: Reader) -> int:
    value = reader.take("seconds", 5)
    if type(value) is not int or value not in _LEASE_SECONDS:
        raise InvalidFieldError(reader.path("seconds"), value, "is out of range", "use a whole number from 1 to 60")
    return value
