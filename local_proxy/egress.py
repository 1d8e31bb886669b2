"""The laptop's way out: the HTTP proxy for the process, and the socket for questions to the agents themselves."""

from __future__ import annotations

from typing import Any

from hairpin.envoy.config import (
    Config,
    http2_upstream,
    http_manager,
    internal,
    json_log,
    message,
    pipe,
    san,
    static_cluster,
    tcp,
    typed,
    upstream_tls,
    virtual_host,
)
from hairpin.headers import AGENT_ITSELF, REFUSED_HEADER, SESSION_HEADER
from hairpin.model.session import AgentAddress
from local_proxy.inject import injection, not_injected
from local_proxy.laptop_settings import LaptopSettings

LOOPBACK = "127.0.0.1"
FOREVER: Config = {"idle_timeout": "0s"}
KEEPALIVE: Config = {"connection_keepalive": {"interval": "2s", "timeout": "2s"}}
"""Of the agent, by the laptop. The agent asks more often: a frozen laptop costs others, a dead agent only its owner."""
CONNECT: Config = {"upgrade_type": "CONNECT"}
AGENT_HEADER = "x-hairpin-agent"
"""Names the cluster of the replica that a question is for: `ask/NAME`."""
_AUTHORITY = "%FILTER_STATE(hairpin.authority:PLAIN)%"
PLAIN = {"plain": "", "plain-80": ":80"}
"""Internal listeners for plain HTTP; what each adds to an authority: its port where the request left it out."""
_REFUSAL_MS = 4000
"""How long the agent may take to say why it refused."""
_SAY_WHY = f"""
function envoy_on_request(handle)
  handle:streamInfo():dynamicMetadata():set("hairpin.plain", "authority", handle:headers():get(":authority") or "")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") ~= "503" or headers:get("x-envoy-upstream-service-time") then return end
  local authority = (handle:streamInfo():dynamicMetadata():get("hairpin.plain") or {{}})["authority"] or ""
  if not authority:match("^[%w_.:%[%]-]+$") then return end
  local path = "/destinations/" .. authority:gsub("%[", "%%5B"):gsub("%]", "%%5D")
  handle:body()  -- held, to be written anew below
  local answer = handle:httpCall("egress",
    {{[":method"] = "GET", [":path"] = path, [":authority"] = "{AGENT_ITSELF}"}}, "", {_REFUSAL_MS})
  local reason = answer["{REFUSED_HEADER}"]
  if not reason then return end
  headers = handle:headers()  -- those from before the call are gone
  headers:replace(":status", answer[":status"])
  headers:replace("{REFUSED_HEADER}", reason)
  local body = handle:body()
  if body then handle:headers():replace("content-length", body:setBytes("hairpin: refused: " .. reason .. "\\n")) end
end
"""
"""A plain request's CONNECT is out of its sight. If it failed, the agent is asked what it says of the destination."""


def egress_cluster(settings: LaptopSettings) -> Config:
    """The way out, over all replicas."""
    replicas = [(to.host, to.port) for to in settings.egress] or [(to.host, to.egress_port) for to in settings.agents]
    identity = settings.egress_identity or settings.agent_identity
    return _to_egress(settings, "egress", identity, *(tcp(*replica) for replica in replicas))


def _to_egress(settings: LaptopSettings, name: str, identity: str, *addresses: Config) -> Config:
    return static_cluster(
        name,
        *addresses,
        transport_socket=upstream_tls(settings.identity, san("URI", identity)),
        typed_extension_protocol_options=http2_upstream(**KEEPALIVE),
    )


def egress_listener(settings: LaptopSettings) -> Config:
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
    none = message("config.route.v3.FilterConfig", disabled=True)
    forget = {"envoy.filters.http.set_filter_state": none, "envoy.filters.http.lua": none}
    if settings.inject is not None:
        forget |= not_injected()
    routes = (
        {
            "match": {"connect_matcher": {}},
            "typed_per_filter_config": forget,
            "route": {"cluster": "egress", "timeout": "0s", **FOREVER, "upgrade_configs": [CONNECT]},
        },
        {"match": {"prefix": "/", "headers": [with_port]}, "route": {"cluster": "plain", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "plain-80", "timeout": "0s"}},
    )
    explain = typed(
        "envoy.filters.http.lua", "extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": _SAY_WHY}
    )
    manager = http_manager(
        "egress",
        filters=(remember, explain, *injection(settings.inject)),
        route_config={"virtual_hosts": [virtual_host("all", *routes)], "validate_clusters": False},
        upgrade_configs=[CONNECT, {"upgrade_type": "websocket"}],
        # Python before 3.12 asks by `CONNECT ... HTTP/1.0`: requests, urllib3 and pip do, for every https URL.
        http_protocol_options={"accept_http_10": True},
        access_log=[request_log()],
    )
    return {
        "name": "egress",
        "address": tcp(LOOPBACK, settings.egress_port),
        "filter_chains": [{"filters": [manager]}],
    }


def request_log() -> Config:
    """A line for each request of the process's."""
    return json_log(
        egress="%REQ(:AUTHORITY)%",
        method="%REQ(:METHOD)%",
        status="%RESPONSE_CODE%",
        durationMs="%DURATION%",
        details="%RESPONSE_CODE_DETAILS%",
        refused="%RESP(X-HAIRPIN-REFUSED)%",
    )


def plain_cluster(name: str, **fields: Any) -> Config:
    """An internal listener as a cluster."""
    raw = typed("envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return static_cluster(
        name,
        internal(name),
        transport_socket=typed(
            "envoy.transport_sockets.internal_upstream",
            "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=raw,
        ),
        **fields,
    )


def plain_listener(name: str, port: str) -> Config:
    """Gives each plain connection a CONNECT of its own."""
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=name,
        cluster="egress",
        tunneling_config={"hostname": _AUTHORITY + port},
        **FOREVER,
    )
    return {"name": name, "internal_listener": {}, "filter_chains": [{"filters": [proxy]}]}


# Questions to the agents themselves


def question_cluster_name(agent: str) -> str:
    """What AGENT_HEADER says of a replica: `ask/NAME`."""
    return f"ask/{agent}"


def question_cluster(settings: LaptopSettings, agent: AgentAddress) -> Config:
    """A replica's egress, for questions to the agent itself."""
    at = tcp(agent.host, agent.egress_port)
    return _to_egress(settings, question_cluster_name(agent.name), settings.agent_identity, at)


def questions_listener(settings: LaptopSettings) -> Config:
    """The Unix socket for them."""
    route: Config = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": AGENT_HEADER,
            "host_rewrite_literal": AGENT_ITSELF,
            "timeout": "0s",
            **FOREVER,
        },
        # The agent goes by the certificate alone.
        "request_headers_to_remove": [SESSION_HEADER],
    }
    manager = http_manager("ask", route_config={"virtual_hosts": [virtual_host("agents", route)]})
    return {"name": "ask", "address": pipe(settings.questions), "filter_chains": [{"filters": [manager]}]}
