"""The laptop's Envoy: tunnels to every replica of the agent, and the HTTP proxy through which the process calls out.

Two parts come from files, which `write_app` and `write_tunnels` replace while Envoy runs: the clusters (where the process
listens, no endpoint before it does; and the replicas of the agent, which may come and go), and one `rc://` listener per
replica. Envoy 1.40 looks for a lost tunnel every ten seconds; a listener with a new name connects at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hairpin.envoy.config import (
    UNLIMITED,
    Config,
    downstream_tls,
    http_manager,
    json_log,
    load_assignment,
    message,
    san,
    static_cluster,
    tcp,
    typed,
    upstream_tls,
    virtual_host,
)
from hairpin.files import write_private
from hairpin.model.session import AgentAddress
from local_proxy.egress import (
    CONNECT,
    FOREVER,
    KEEPALIVE,
    PLAIN,
    egress_cluster,
    egress_listener,
    plain_cluster,
    plain_listener,
    question_cluster,
    questions_listener,
)
from local_proxy.gateway import gateway_clusters, gateway_listeners
from local_proxy.laptop_settings import LaptopSettings

_INITIATOR = "envoy.reverse_tunnel.initiator"


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
            "clusters": [*(plain_cluster(name) for name in PLAIN), *gateway_clusters(settings)],
            "listeners": [
                egress_listener(settings),
                *(plain_listener(name, port) for name, port in PLAIN.items()),
                *gateway_listeners(settings),
                questions_listener(settings),
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
    return [
        *(_agent_cluster(settings, agent) for agent in settings.agents),
        egress_cluster(settings),
        *(question_cluster(settings, agent) for agent in settings.agents),
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
    app = {"cluster": "app", "timeout": "0s", **FOREVER, "upgrade_configs": [{**CONNECT, "connect_config": {}}]}
    manager = http_manager(
        "tunnel",
        codec_type="HTTP2",
        route_config={"virtual_hosts": [virtual_host("app", {"match": {"connect_matcher": {}}, "route": app})]},
        upgrade_configs=[CONNECT],
        http2_protocol_options={"allow_connect": True, **KEEPALIVE},
        common_http_protocol_options=FOREVER,
    )
    secure = downstream_tls(settings.identity, san("URI", settings.agent_identity), alpn=("h2",))
    return message(
        "config.listener.v3.Listener",
        name=f"tunnel/{agent.name}/{generation}",
        address={"socket_address": socket},
        listener_filters_timeout="0s",
        filter_chains=[{"transport_socket": secure, "filters": [manager]}],
    )
