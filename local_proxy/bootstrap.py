"""The laptop's Envoy: tunnels to every replica of the agent, and the HTTP proxy through which the process calls out.

Two parts come from files, which `write_app` and `write_tunnels` replace while Envoy runs: the clusters (where the process
listens, no endpoint before it does; and the replicas of the agent, which may come and go), and one `rc://` listener per
replica. Envoy 1.40 looks for a lost tunnel every ten seconds; a listener with a new name connects at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hairpin.envoy.config import (
    UNLIMITED,
    Config,
    Identity,
    downstream_tls,
    http2_upstream,
    http_manager,
    internal,
    json_log,
    load_assignment,
    message,
    pipe,
    san,
    static_cluster,
    tcp,
    typed,
    upstream_tls,
    virtual_host,
)
from hairpin.files import write_private
from hairpin.headers import SESSION_HEADER
from hairpin.model.session import AgentAddress, EgressAddress

_LOOPBACK = "127.0.0.1"
_FOREVER: Config = {"idle_timeout": "0s"}
_KEEPALIVE: Config = {"connection_keepalive": {"interval": "2s", "timeout": "2s"}}
"""Of the agent, by the laptop. The agent asks more often: a frozen laptop costs others, a dead agent only its owner."""
_INITIATOR = "envoy.reverse_tunnel.initiator"
_AUTHORITY = "%FILTER_STATE(hairpin.authority:PLAIN)%"
_CONNECT: Config = {"upgrade_type": "CONNECT"}
AGENT_HEADER = "x-hairpin-agent"
"""Names the cluster of the replica that a question is for: `ask/NAME`."""
_AGENT_ITSELF = "hairpin.internal"
"""What the agent calls itself on its egress."""
_LONGEST_SOCKET = 100
"""Characters of a Unix socket's path; Linux takes 107, macOS 103."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaptopSettings:
    """What the laptop's Envoy depends on."""

    session: str
    """The session's id: the node id of its tunnels and the only SAN of its certificate."""
    identity: Identity
    agents: tuple[AgentAddress, ...]
    agent_identity: str
    """The URI SAN that the agent's certificate must bear, at both handshakes."""
    egress: tuple[EgressAddress, ...] = ()
    """Where the process's connections leave; empty: at `agents`."""
    egress_identity: str = ""
    """The URI SAN of those; empty: `agent_identity`."""
    asks: bool = False
    """Whether questions to the agents are taken, at `questions`."""
    egress_port: int
    """The HTTP proxy's, on loopback."""
    directory: Path
    """Where the files lie that change while Envoy runs."""
    tunnels: bool = True
    """False in mode `egress`: nothing is taken over."""

    @property
    def app_file(self) -> Path:
        """The clusters, `app` first, as Envoy's CDS reads them."""
        return self.directory / "app.json"

    @property
    def questions(self) -> Path | None:
        """The Unix socket for requests to a replica of the agent itself, which AGENT_HEADER names; None: there is none."""
        path = self.directory / "ask.sock"
        return path if self.asks and len(str(path)) <= _LONGEST_SOCKET else None

    @property
    def tunnels_file(self) -> Path:
        """The tunnels' listeners, as Envoy's LDS reads them."""
        return self.directory / "tunnels.json"


def laptop_bootstrap(settings: LaptopSettings) -> Config:
    """The bootstrap of the laptop's Envoy, for `--concurrency 1`; nothing in it listens beyond loopback."""
    return {
        "node": {"id": settings.session, "cluster": "hairpin-laptop"},
        "bootstrap_extensions": [
            _tunnel_sockets(),
            typed("envoy.bootstrap.internal_listener", "extensions.bootstrap.internal_listener.v3.InternalListener"),
        ],
        "dynamic_resources": {
            "cds_config": _file(settings.app_file),
            "lds_config": _file(settings.tunnels_file),
        },
        "static_resources": {
            "clusters": [_plain_cluster(name) for name in _PLAIN],
            "listeners": [
                _egress_listener(settings),
                *(_plain_listener(name, port) for name, port in _PLAIN.items()),
                *_questions_listeners(settings),
            ],
        },
    }


def write_app(settings: LaptopSettings, address: tuple[str, int] | None) -> None:
    """Say where the process listens, and where the agents are.

    Args:
        settings: the settings; other agents than before are taken.
        address: the process's; None where it does not listen: requests are then refused at the laptop.
    """
    endpoints = [] if address is None else [tcp(*address)]
    cluster = {
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": UNLIMITED,
        "load_assignment": load_assignment("app", *endpoints),
    }
    clusters = [cluster, *_agents_clusters(settings)]
    _write(settings.app_file, *(message("config.cluster.v3.Cluster", **cluster) for cluster in clusters))


def _agents_clusters(settings: LaptopSettings) -> list[Config]:
    asked = settings.agents if settings.asks else ()
    return [
        *(_agent_cluster(settings, agent) for agent in settings.agents),
        _egress_cluster(settings),
        *(_question_cluster(settings, agent) for agent in asked),
    ]


def write_tunnels(settings: LaptopSettings, generations: Mapping[str, int]) -> None:
    """Write the tunnels' listeners. A replica whose generation is a new one gets a new tunnel at once.

    Args:
        settings: the settings.
        generations: by the replica's name; 0 where it is missing.
    """
    agents = settings.agents if settings.tunnels else ()
    _write(
        settings.tunnels_file, *(_tunnel_listener(settings, agent, generations.get(agent.name, 0)) for agent in agents)
    )


def _write(path: Path, *resources: Config) -> None:
    write_private(path, json.dumps({"resources": resources}).encode())


def _file(path: Path) -> Config:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


# Tunnels


def _tunnel_sockets() -> Config:
    """Reverse tunnels' bootstrap extension; it says on stdout what becomes of each tunnel."""
    fields = {
        "event": f"%DYNAMIC_METADATA({_INITIATOR}:event)%",
        "cluster": f"%DYNAMIC_METADATA({_INITIATOR}:upstream_cluster)%",
        "error": f"%DYNAMIC_METADATA({_INITIATOR}:error)%",
    }
    return typed(
        "envoy.bootstrap.reverse_tunnel.downstream_socket_interface",
        "extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface",
        stat_prefix="tunnel",
        max_reconnect_backoff="1s",
        http_handshake={"use_http_upgrade": True},
        access_log=[json_log(**fields)],
    )


def _agent_cluster(settings: LaptopSettings, agent: AgentAddress) -> Config:
    """Where a tunnel is dialled. This TLS covers the handshake alone; the listener's covers what follows."""
    return static_cluster(
        cluster_name(agent),
        tcp(agent.host, agent.tunnel_port),
        transport_socket=upstream_tls(settings.identity, san("URI", settings.agent_identity), alpn=("http/1.1",)),
    )


def cluster_name(agent: AgentAddress) -> str:
    """The name that the tunnel's events give a replica: `agent/NAME`."""
    return f"agent/{agent.name}"


def _tunnel_listener(settings: LaptopSettings, agent: AgentAddress, generation: int) -> Config:
    """Dials a replica and answers what comes back: CONNECT, then the caller's own bytes for the process."""
    here = f"rc://{settings.session}:laptops:hairpin@{cluster_name(agent)}:1"
    socket = {"address": here, "port_value": 0, "resolver_name": "envoy.resolvers.reverse_connection"}
    app = {"cluster": "app", "timeout": "0s", **_FOREVER, "upgrade_configs": [{**_CONNECT, "connect_config": {}}]}
    manager = http_manager(
        "tunnel",
        codec_type="HTTP2",
        route_config={"virtual_hosts": [virtual_host("app", {"match": {"connect_matcher": {}}, "route": app})]},
        upgrade_configs=[_CONNECT],
        http2_protocol_options={"allow_connect": True, **_KEEPALIVE},
        common_http_protocol_options=_FOREVER,
    )
    secure = downstream_tls(settings.identity, san("URI", settings.agent_identity), alpn=("h2",))
    return message(
        "config.listener.v3.Listener",
        name=f"tunnel/{agent.name}/{generation}",
        address={"socket_address": socket},
        listener_filters_timeout="0s",
        filter_chains=[{"transport_socket": secure, "filters": [manager]}],
    )


# Egress

_PLAIN = {"plain": "", "plain-80": ":80"}
"""Internal listeners for plain HTTP; what each adds to an authority: its port where the request left it out."""


def _egress_cluster(settings: LaptopSettings) -> Config:
    """The way out, over all replicas."""
    replicas = [(to.host, to.port) for to in settings.egress] or [(to.host, to.egress_port) for to in settings.agents]
    identity = settings.egress_identity or settings.agent_identity
    return _to_egress(settings, "egress", identity, *(tcp(*replica) for replica in replicas))


def _to_egress(settings: LaptopSettings, name: str, identity: str, *addresses: Config) -> Config:
    return static_cluster(
        name,
        *addresses,
        transport_socket=upstream_tls(settings.identity, san("URI", identity)),
        typed_extension_protocol_options=http2_upstream(**_KEEPALIVE),
    )


def _egress_listener(settings: LaptopSettings) -> Config:
    """The HTTP proxy: CONNECT goes to the agent as it is; a plain request gets a CONNECT of its own."""
    name = {"format_string": {"text_format_source": {"inline_string": "%REQ(:AUTHORITY)%"}}}
    remember = typed(
        "envoy.filters.http.set_filter_state",
        "extensions.filters.http.set_filter_state.v3.Config",
        on_request_headers=[
            # Hashable, so that each authority has connections of its own.
            {
                "object_key": "hairpin.authority",
                "factory_key": "envoy.hashable_string",
                "shared_with_upstream": "ONCE",
                **name,
            }
        ],
    )
    with_port = {"name": ":authority", "string_match": {"safe_regex": {"regex": r".*:[0-9]+"}}}
    # A CONNECT shares one connection to the agent with all others: nothing of it may tell them apart.
    forget = {"envoy.filters.http.set_filter_state": message("config.route.v3.FilterConfig", disabled=True)}
    routes = (
        {
            "match": {"connect_matcher": {}},
            "typed_per_filter_config": forget,
            "route": {"cluster": "egress", "timeout": "0s", **_FOREVER, "upgrade_configs": [_CONNECT]},
        },
        {"match": {"prefix": "/", "headers": [with_port]}, "route": {"cluster": "plain", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "plain-80", "timeout": "0s"}},
    )
    log = json_log(
        egress="%REQ(:AUTHORITY)%",
        method="%REQ(:METHOD)%",
        status="%RESPONSE_CODE%",
        durationMs="%DURATION%",
        details="%RESPONSE_CODE_DETAILS%",
        refused="%RESP(X-HAIRPIN-REFUSED)%",
    )
    manager = http_manager(
        "egress",
        filters=(remember,),
        route_config={"virtual_hosts": [virtual_host("all", *routes)], "validate_clusters": False},
        upgrade_configs=[_CONNECT, {"upgrade_type": "websocket"}],
        access_log=[log],
    )
    return {
        "name": "egress",
        "address": tcp(_LOOPBACK, settings.egress_port),
        "filter_chains": [{"filters": [manager]}],
    }


def _plain_cluster(name: str) -> Config:
    raw = typed("envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return static_cluster(
        name,
        internal(name),
        transport_socket=typed(
            "envoy.transport_sockets.internal_upstream",
            "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=raw,
        ),
    )


def _plain_listener(name: str, port: str) -> Config:
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=name,
        cluster="egress",
        tunneling_config={"hostname": _AUTHORITY + port},
        **_FOREVER,
    )
    return {"name": name, "internal_listener": {}, "filter_chains": [{"filters": [proxy]}]}


# Questions to the agents themselves


def question_cluster_name(agent: str) -> str:
    """What AGENT_HEADER says of a replica: `ask/NAME`."""
    return f"ask/{agent}"


def _question_cluster(settings: LaptopSettings, agent: AgentAddress) -> Config:
    at = tcp(agent.host, agent.egress_port)
    return _to_egress(settings, question_cluster_name(agent.name), settings.agent_identity, at)


def _questions_listeners(settings: LaptopSettings) -> list[Config]:
    if settings.questions is None:
        return []
    route: Config = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": AGENT_HEADER,
            "host_rewrite_literal": _AGENT_ITSELF,
            "timeout": "0s",
            **_FOREVER,
        },
        # The agent goes by the certificate alone.
        "request_headers_to_remove": [SESSION_HEADER],
    }
    manager = http_manager("ask", route_config={"virtual_hosts": [virtual_host("agents", route)]})
    return [{"name": "ask", "address": pipe(settings.questions), "filter_chains": [{"filters": [manager]}]}]
