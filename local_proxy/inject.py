"""`--inject-env`: the environment's header, on requests of the command's that lack it; by HTTP/1.1 and h2c, on both ways out.

A header is added if it is absent. A member of `baggage` or `tracestate` is added to the members that are there, unless one
has its name: what the program propagates counts. TLS is not opened, and other bytes pass as they are.

On the gateway Envoy looks at a connection's first bytes (`http_inspector`) for at most INSPECTION. A program that waits for the
server to speak first (MySQL, SMTP) is delayed by that; one that is silent for longer passes as it is, without the header.
"""

from __future__ import annotations

import json

from hairpin.envoy.config import Config, http_manager, message, typed, virtual_host
from hairpin.errors import SkewError
from hairpin.model.environment import Carrier, Environment, RoutingKey
from hairpin.model.session import Session
from hairpin.model.version import OURS

INSPECTION = "0.3s"
"""How long a connection through the gateway may take to show that it is HTTP; its PROXY header counts, which comes at once."""
AUTHORITY_STATE, NAME_STATE = "hairpin.authority", "hairpin.name"
HTTP1: Config = {
    "header_key_format": {
        "stateful_formatter": typed(
            "preserve_case", "extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
        )
    },
    "enable_trailers": True,
}
"""HTTP/1.1 as the program wrote it: some look for a header's exact letters."""
_FILTER = "hairpin.inject"
_BAGGAGE_MOST = 8192
"""Bytes of a `baggage` that is still merged (W3C Baggage: what all parties must pass on)."""

_MERGE = """
local header, name, own = %(header)s, %(name)s, %(own)s
function envoy_on_request(handle)
  local headers = handle:headers()
  local members = {}
  for index = 0, headers:getNumValues(header) - 1 do
    members[#members + 1] = headers:getAtIndex(header, index)
  end
  local list = table.concat(members, ",")
  for member in list:gmatch("[^,]+") do
    if member:match("^%%s*([^=;%%s]+)%%s*=") == name then return end
  end
  if #list > %(most)d then return end
  headers:replace(header, list:match("^[%%s,]*$") and own or %(joined)s)
end
"""


def injected(session: Session, known: RoutingKey | None) -> Environment:
    """Whose header is added in a session that has an environment.

    Args:
        session: as the control plane answered.
        known: the mesh's routing key, if the laptop knows it.

    Raises:
        SkewError: the control plane does not say what marks the environment's requests.
    """
    key, name = session.status.routing_key or known, session.spec.environment or ""
    if key is None:
        raise SkewError(
            f"the control plane is {session.status.server} and does not say what marks the requests of environment {name}, "
            f"which --inject-env of {OURS} adds; upgrade it with `hairpin install`, or leave out --inject-env"
        )
    return Environment(name, key)


def injection(environment: Environment | None) -> tuple[Config, ...]:
    """The HTTP filter; none where there is no environment to tell."""
    if environment is None:
        return ()
    key = environment.routing_key
    if key.carrier is Carrier.HEADER:
        # In Envoy's format language `%` begins a command.
        header = {"key": key.name, "value": environment.name.replace("%", "%%")}
        add: Config = {"append": {"header": header, "append_action": "ADD_IF_ABSENT"}}
        kind = "extensions.filters.http.header_mutation.v3.HeaderMutation"
        return (typed(_FILTER, kind, mutations={"request_mutations": [add]}),)
    # tracestate's newest member stands first (W3C Trace Context); of baggage the order means nothing.
    script = _MERGE % {
        "header": _lua(key.carrier.value),
        "name": _lua(key.name),
        "own": _lua(f"{key.name}={environment.name}"),
        "joined": 'own .. "," .. list' if key.carrier is Carrier.TRACESTATE else 'list .. "," .. own',
        "most": _BAGGAGE_MOST,
    }
    return (typed(_FILTER, "extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script}),)


def not_injected() -> Config:
    """For a CONNECT's route: its own headers go nowhere."""
    return {_FILTER: message("config.route.v3.FilterConfig", disabled=True)}


def http_chain(environment: Environment, cluster: str, authority: str, name: str, log: Config) -> Config:
    """The gateway's filter chain for connections that are HTTP.

    Args:
        environment: whose header is added.
        cluster: where its requests go, told what is remembered here.
        authority: the format string of what to CONNECT to, remembered as AUTHORITY_STATE.
        name: that of the name that the program had looked up, remembered as NAME_STATE.
        log: of its requests.
    """
    remember = typed(
        "envoy.filters.network.set_filter_state",
        "extensions.filters.network.set_filter_state.v3.Config",
        on_new_connection=[_remembered(AUTHORITY_STATE, authority), _remembered(NAME_STATE, name)],
    )
    forever = {"cluster": cluster, "timeout": "0s", "idle_timeout": "0s"}
    connect: Config = {"upgrade_type": "CONNECT"}
    routes = (
        # To a proxy of the cluster's: the CONNECT is that proxy's to answer.
        {
            "match": {"connect_matcher": {}},
            "typed_per_filter_config": not_injected(),
            "route": {**forever, "upgrade_configs": [connect]},
        },
        {"match": {"prefix": "/"}, "route": forever},
    )
    manager = http_manager(
        cluster,
        filters=injection(environment),
        route_config={"virtual_hosts": [virtual_host("all", *routes)], "validate_clusters": False},
        upgrade_configs=[connect, {"upgrade_type": "websocket"}],
        http_protocol_options={**HTTP1, "accept_http_10": True},
        common_http_protocol_options={"idle_timeout": "0s"},
        server_header_transformation="PASS_THROUGH",
        generate_request_id=False,
        proxy_100_continue=True,
        access_log=[log],
    )
    return {
        "filter_chain_match": {"application_protocols": ["http/1.0", "http/1.1", "h2c"]},
        "filters": [remember, manager],
    }


def filter_state(key: str) -> str:
    """The format string of what is remembered under a key."""
    return f"%FILTER_STATE({key}:PLAIN)%"


def _remembered(key: str, text: str) -> Config:
    # Hashable, so that no two destinations share a connection.
    return {
        "object_key": key,
        "factory_key": "envoy.hashable_string",
        "format_string": {"text_format_source": {"inline_string": text}},
        "shared_with_upstream": "ONCE",
    }


def _lua(text: str) -> str:
    """Printable ASCII as a literal of Lua's, which has the same escapes as JSON for it."""
    return json.dumps(text)
