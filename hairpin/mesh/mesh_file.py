"""The mesh's file: `mesh.yaml` as users write it, and the same with every address filled in, as the control plane reads it.

name: shop
entry: {service: frontend, port: 8080}
services:
  frontend:
    ports: [{port: 80}]
    command: [python, frontend.py, --port, "{port}"]
  checkout:
    ports: [{port: 80}, {name: grpc, port: 9090}]
    command: [python, checkout.py, --port, "{port:http}"]
  inventory:                 # run by yourself, on a port of your choice
    ports: [{port: 80, app: 127.0.0.1:8081}]
"""

from __future__ import annotations

import getpass
import re
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.mesh import (
    AGENT,
    ENTRY,
    AgentReplica,
    ControlPlane,
    Entry,
    Mesh,
    ServicePort,
    SocketAddress,
    Workload,
)
from hairpin.model.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PLACEHOLDER = re.compile(r"\{([a-z]+)(?::([-a-z0-9]+))?\}")
"""In a command: `{python}`, `{port}`, `{port:NAME}`."""
LOOPBACK = "127.0.0.1"
MOST_AGENTS = 9
AGENT_ADDRESSES = ("steer", "tunnel", "egress", "ready", "inbound", "outbound")
RESERVED = {AGENT: "the agent's", ENTRY: "the mesh's entry's", "xds-server": "the control plane's"}
"""Names of the mesh's own parts: identities, folders and logs bear them."""


def mesh_from_document(document: Any, ports: Iterator[int]) -> Mesh:
    """Read a mesh; `ports` gives a free port for every address that the file leaves open.

    Raises:
        InvalidFieldError: a field is wrong; the message names it and what would be right.
    """
    ports = _unwritten(document, ports)
    reader = Reader(document, "")
    name = reader.text("name", default="mesh", pattern=LABEL)
    namespace = reader.text("namespace", default="default", pattern=LABEL)
    services = reader.mapping("services")
    workloads = tuple(_workload(key, value, namespace, ports) for key, value in services.items())
    if not workloads:
        raise InvalidFieldError("services", {}, "has no service", "name at least one, with a port")
    mesh = Mesh(
        name=name,
        namespace=namespace,
        trust_domain=reader.text("trustDomain", default="hairpin.local"),
        routing_key=_routing_key(reader.section("routingKey", {"header": "x-env"})),
        entry=_entry(reader.section("entry", {}), workloads, ports),
        control_plane=_control_plane(reader.section("controlPlane", {}), ports),
        workloads=workloads,
        agents=_agents(reader.section("agents", {}), namespace, ports),
        developers=tuple(reader.texts("developers", default=[getpass.getuser()])),
    )
    reader.finish()
    _distinct(mesh)
    return mesh


def _unwritten(document: Any, ports: Iterator[int]) -> Iterator[int]:
    """The ports whose number the file does not use itself, wherever in it."""
    written = {int(number) for number in re.findall(r"\d+", str(document))}
    return (port for port in ports if port not in written)


def mesh_to_document(mesh: Mesh) -> dict[str, Any]:
    """The mesh with every address, in the same format."""
    return {
        "name": mesh.name,
        "namespace": mesh.namespace,
        "trustDomain": mesh.trust_domain,
        "routingKey": {mesh.routing_key.carrier.value: mesh.routing_key.name},
        "entry": {"service": mesh.entry.service, "address": str(mesh.entry.address)},
        "controlPlane": {"xds": str(mesh.control_plane.xds), "api": str(mesh.control_plane.api)},
        "services": {workload.name: _workload_document(workload) for workload in mesh.workloads},
        "agents": {"replicas": [_agent_document(agent) for agent in mesh.agents]},
        "developers": list(mesh.developers),
    }


def _workload_document(workload: Workload) -> dict[str, Any]:
    return {
        "ports": [
            {"port": port.number, "name": port.name, "app": str(port.app), "inbound": str(port.inbound)}
            for port in workload.ports
        ],
        "outbound": str(workload.outbound),
        "command": list(workload.command),
        "steerable": workload.steerable,
    }


def _agent_document(agent: AgentReplica) -> dict[str, Any]:
    return {"name": agent.name, **{name: str(getattr(agent, name)) for name in AGENT_ADDRESSES}}


def _workload(name: Any, document: Any, namespace: str, ports: Iterator[int]) -> Workload:
    where = f"services.{name}"
    if not isinstance(name, str) or not LABEL.fullmatch(name):
        raise InvalidFieldError("services", name, "is not a service's name", "use lower-case letters, digits and -")
    if name in RESERVED:
        raise InvalidFieldError("services", name, f"is {RESERVED[name]} own name", "call the service something else")
    reader = Reader(document, where)
    entries = reader.items("ports", default=[{"port": 80}])
    if not entries:
        raise InvalidFieldError(f"{where}.ports", [], "is empty", "name a port, as in [{port: 80}]")
    workload = Workload(
        name=name,
        namespace=namespace,
        ports=tuple(_port(entry, f"{where}.ports[{index}]", index, ports) for index, entry in enumerate(entries)),
        outbound=_address(reader, "outbound", ports),
        command=tuple(reader.texts("command", default=[])),
        steerable=reader.flag("steerable", default=True),
    )
    reader.finish()
    _known_placeholders(workload, f"{where}.command")
    for field in ("number", "name"):
        values = [getattr(port, field) for port in workload.ports]
        if len(set(values)) < len(values):
            raise InvalidFieldError(f"{where}.ports", values, f"has a {field} twice", "give each port its own")
    return workload


def _known_placeholders(workload: Workload, where: str) -> None:
    for index, word in enumerate(workload.command):
        for placeholder, port in PLACEHOLDER.findall(word):
            known = placeholder == "python" if not port else placeholder == "port" and workload.port(port) is not None
            if not known and (placeholder, port) != ("port", ""):
                names = ", ".join(f"{{port:{p.name}}}" for p in workload.ports)
                written = f"{{{placeholder}{':' + port if port else ''}}}"
                problem = f"has {written}, which stands for nothing"
                raise InvalidFieldError(f"{where}[{index}]", word, problem, f"use {{python}}, {{port}} or {names}")


def _port(document: Any, where: str, index: int, ports: Iterator[int]) -> ServicePort:
    reader = Reader(document, where)
    port = ServicePort(
        number=reader.port("port", default=80),
        name=reader.text("name", default="http" if index == 0 else f"port-{index}", pattern=LABEL),
        app=_address(reader, "app", ports),
        inbound=_address(reader, "inbound", ports),
    )
    reader.finish()
    return port


def _routing_key(reader: Reader) -> RoutingKey:
    given = [carrier for carrier in Carrier if carrier.value in reader.names]
    if len(given) != 1:
        raise InvalidFieldError(
            reader.where, sorted(reader.names), "is not one routing key", "write one, as in {header: x-env}"
        )
    key = RoutingKey(given[0], reader.text(given[0].value).lower())
    reader.finish()
    return key


def _entry(reader: Reader, workloads: tuple[Workload, ...], ports: Iterator[int]) -> Entry:
    service = reader.text("service", default=workloads[0].name)
    if service not in [workload.name for workload in workloads]:
        names = ", ".join(workload.name for workload in workloads)
        raise InvalidFieldError("entry.service", service, "is not a service of this mesh", f"name one of {names}")
    if "port" in reader.names:
        address = SocketAddress(LOOPBACK, reader.port("port"))
    else:
        address = _address(reader, "address", ports)
    reader.finish()
    return Entry(service=service, address=address)


def _control_plane(reader: Reader, ports: Iterator[int]) -> ControlPlane:
    plane = ControlPlane(xds=_address(reader, "xds", ports), api=_address(reader, "api", ports))
    reader.finish()
    return plane


def _agents(reader: Reader, namespace: str, ports: Iterator[int]) -> tuple[AgentReplica, ...]:
    value = reader.take("replicas", 1)
    reader.finish()
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_AGENTS:
            raise InvalidFieldError("agents.replicas", value, "is out of range", f"use 1 to {MOST_AGENTS}")
        value = [{} for _ in range(value)]
    if not isinstance(value, list):
        raise InvalidFieldError("agents.replicas", value, "is not a number", f"use 1 to {MOST_AGENTS}")
    return tuple(_agent(entry, index, namespace, ports) for index, entry in enumerate(value))


def _agent(document: Any, index: int, namespace: str, ports: Iterator[int]) -> AgentReplica:
    reader = Reader(document, f"agents.replicas[{index}]")
    agent = AgentReplica(
        name=reader.text("name", default=f"{AGENT}-{index}", pattern=LABEL),
        namespace=namespace,
        **{name: _address(reader, name, ports) for name in AGENT_ADDRESSES},
    )
    reader.finish()
    return agent


def _address(reader: Reader, field: str, ports: Iterator[int]) -> SocketAddress:
    text = reader.text(field, default="")
    if not text:
        return SocketAddress(LOOPBACK, next(ports))
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 # a port
        raise InvalidFieldError(reader.path(field), text, "is not an address", "write HOST:PORT, as in 127.0.0.1:8081")
    return SocketAddress(host.strip("[]"), int(port))


def _distinct(mesh: Mesh) -> None:
    """Every address once: two listeners on one port would be found out late, by Envoy. And every replica's name."""
    seen: dict[SocketAddress, str] = {}
    names = {*RESERVED, *(workload.name for workload in mesh.workloads)}
    for index, agent in enumerate(mesh.agents):
        if agent.name in names:
            raise InvalidFieldError(
                f"agents.replicas[{index}].name", agent.name, "is another part's name already", "choose another"
            )
        names.add(agent.name)

    def claim(field: str, address: SocketAddress) -> None:
        if address in seen:
            raise InvalidFieldError(field, str(address), f"is taken by {seen[address]} already", "choose another port")
        seen[address] = field

    claim("entry", mesh.entry.address)
    claim("controlPlane.xds", mesh.control_plane.xds)
    claim("controlPlane.api", mesh.control_plane.api)
    for workload in mesh.workloads:
        claim(f"services.{workload.name}.outbound", workload.outbound)
        for port in workload.ports:
            claim(f"services.{workload.name}.ports.{port.name}.app", port.app)
            claim(f"services.{workload.name}.ports.{port.name}.inbound", port.inbound)
    for index, agent in enumerate(mesh.agents):
        for name in AGENT_ADDRESSES:
            claim(f"agents.replicas[{index}].{name}", getattr(agent, name))
