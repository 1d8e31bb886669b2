"""The agent's egress: who may use it, and where it leads.

A laptop's CONNECT passes two judgements. *Who*: an RBAC filter discovered by ADS under the name `hairpin.egress`, keyed
by the DNS SAN of the session's certificate; without the resource everyone is refused. *Where*: names of the mesh go to
the agent's sidecar; for every other authority the judge (`agent.judge`) is asked for the address to connect to. Where the
sidecar intercepts, every authority is asked about, and a Service's address is taken by the sidecar as any program's is.

The authority `hairpin.internal` is the agent itself (`agent.laptops`), for requests but CONNECT.
"""

from __future__ import annotations

from agent.judge import ADDRESS_HEADER, AUTHORITY_HEADER
from agent.settings import AgentSettings
from hairpin.envoy.config import (
    UNLIMITED,
    Config,
    address,
    discovered_filter,
    downstream_tls,
    hears,
    http_manager,
    message,
    pipe,
    set_header,
    static_cluster,
    tls_inspector,
    typed,
    virtual_host,
)
from hairpin.headers import AGENT_ITSELF, FAILED_HEADER, HOST_HEADER, REFUSED_HEADER, SESSION_HEADER

EGRESS_POLICY = "hairpin.egress"
"""The ECDS resource that says which sessions may use the egress."""
POLICY_UPDATES = rf"extension_config_discovery\..*{EGRESS_POLICY}.*config_reload$"
"""Envoy's counter of what it took of it."""

_RBAC = "extensions.filters.http.rbac.v3.RBAC"
_JUDGE = "judge"
_LAPTOPS = "laptops"
_TIMEOUT_MS = 12000
"""Longer than the judge's own, so that its reason arrives."""

_ASK_THE_JUDGE = f"""
function envoy_on_request(handle)
  local tls = handle:streamInfo():downstreamSslConnection()
  local question = {{[":method"] = "GET", [":path"] = "/", [":authority"] = "{_JUDGE}",
                     ["{SESSION_HEADER}"] = tls and tls:dnsSansPeerCertificate()[1] or "",
                     ["{AUTHORITY_HEADER}"] = handle:headers():get(":authority"),
                     ["{HOST_HEADER}"] = handle:headers():get("{HOST_HEADER}") or ""}}
  local answer = handle:httpCall("{_JUDGE}", question, "", {_TIMEOUT_MS})
  local address = answer["{ADDRESS_HEADER}"]
  if answer[":status"] == "200" and address then
    handle:headers():replace("{ADDRESS_HEADER}", address)
  else
    handle:respond({{[":status"] = answer[":status"] == "200" and "503" or answer[":status"],
                     ["{REFUSED_HEADER}"] = answer["{REFUSED_HEADER}"] or "the agent can not resolve names"}}, "")
  end
end
"""

_UNJUDGED: Config = {
    "typed_per_filter_config": {
        "envoy.filters.http.lua": message("extensions.filters.http.lua.v3.LuaPerRoute", disabled=True)
    }
}


def egress_listener(settings: AgentSettings) -> Config:
    """The egress for laptops: HTTP/2 CONNECT over mutual TLS."""
    nobody = message(_RBAC, rules={"action": "ALLOW", "policies": {}})
    who = discovered_filter(EGRESS_POLICY, nobody, _RBAC)
    hosts = [
        virtual_host("others", _connect("resolved")),
        virtual_host(_LAPTOPS, _agent_itself(), domains=(AGENT_ITSELF,)),
    ]
    if settings.mesh_outbound and settings.mesh_domains:
        hosts.append(virtual_host("mesh", _connect("mesh") | _UNJUDGED, domains=settings.mesh_domains))
    judge = typed(
        "envoy.filters.http.lua",
        "extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": _ASK_THE_JUDGE},
    )
    # The address comes from the judge alone: a laptop's own header is gone before any filter, and a script that fails
    # leaves none, which is a 503. Likewise the session, which comes from the certificate alone.
    forget = typed(
        "envoy.http.early_header_mutation.header_mutation",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove": ADDRESS_HEADER}, {"remove": SESSION_HEADER}],
    )
    manager = http_manager(
        "egress",
        early_header_mutation_extensions=[forget],
        filters=(who, judge),
        route_config={"virtual_hosts": hosts, "ignore_port_in_host_matching": True},
        local_reply_config={
            "body_format": {"text_format_source": {"inline_string": ""}},
            "mappers": [_why_failed()],
        },
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        http2_protocol_options={
            "allow_connect": True,
            "connection_keepalive": {"interval": "5s", "timeout": "5s"},
        },
    )
    secure = {"transport_socket": downstream_tls(settings.identity), "filters": [manager]}
    return {
        "name": "egress",
        "address": address(settings.egress),
        "filter_chains": [secure],
        **hears(tls_inspector()),
    }


def egress_clusters(settings: AgentSettings) -> list[Config]:
    """Where the egress leads: the mesh's names to the sidecar, the others to the address that the judge gave."""
    resolved: Config = {
        "name": "resolved",
        "type": "ORIGINAL_DST",
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ADDRESS_HEADER},
        "circuit_breakers": UNLIMITED,
    }
    clusters = [
        resolved,
        static_cluster(_JUDGE, pipe(settings.judge_socket)),
        static_cluster(_LAPTOPS, pipe(settings.laptops_socket)),
    ]
    if settings.mesh_outbound:
        clusters.append(static_cluster("mesh", address(settings.mesh_outbound)))
    return clusters


def _connect(cluster: str) -> Config:
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": cluster, "timeout": "0s", "idle_timeout": "0s", "upgrade_configs": [upgrade]},
    }


def _why_failed() -> Config:
    """A connect that failed says why: a laptop makes it the program's errno (`local_proxy.intercept.answers`)."""
    failures = {"op": "GE", "value": {"default_value": 500, "runtime_key": "hairpin.egress.failures"}}
    return {
        "filter": {"status_code_filter": {"comparison": failures}},
        "headers_to_add": [set_header(FAILED_HEADER, "%RESPONSE_CODE_DETAILS%")],
    }


def _agent_itself() -> Config:
    """To the agent's Python, which knows the session by this header. A CONNECT does not match."""
    return {
        "match": {"prefix": "/"},
        "route": {"cluster": _LAPTOPS, "timeout": "0s", "idle_timeout": "0s"},
        "request_headers_to_add": [set_header(SESSION_HEADER, "%DOWNSTREAM_PEER_DNS_SAN%")],
        **_UNJUDGED,
    }
