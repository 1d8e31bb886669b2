"""The agent's egress policy: which sessions may use it. Pure.

An RBAC filter that the agent's Envoy discovers, keyed by the DNS SAN of the laptop's certificate: a session that ended is
refused at once, however long its certificate holds. A session whose connections leave elsewhere may still put questions to
the agent itself: requests to `hairpin.internal` that are no CONNECT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    PermissionSet,
    Policy,
    Principal,
    PrincipalAuthenticated,
    RbacAction,
)
from envoy_data_plane.envoy.config.rbac.v3 import (
    Rbac as RbacRules,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as RbacFilter
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from hairpin.headers import AGENT_ITSELF
from xds_server.generate.build import pack
from xds_server.model.resource import Resource
from xds_server.model.type_url import TypeUrl

if TYPE_CHECKING:
    from collections.abc import Iterable

EGRESS_POLICY = "hairpin.egress"


def egress_resource(sessions: Iterable[str], asking: Iterable[str] = ()) -> Resource:
    """The policy for these sessions, by name; without any, everyone is refused.

    Args:
        sessions: those whose connections leave here.
        asking: further ones, that may put questions to the agent.
    """
    questions = Permission(
        and_rules=PermissionSet(
            rules=[Permission(not_rule=_header(":method", "CONNECT")), _header(":authority", AGENT_ITSELF)]
        )
    )
    policies = {name: Policy(permissions=[questions], principals=[_bearer(name)]) for name in sorted(asking)}
    policies |= {
        name: Policy(permissions=[Permission(any=True)], principals=[_bearer(name)]) for name in sorted(sessions)
    }
    config = RbacFilter(rules=RbacRules(action=RbacAction.ALLOW, policies=policies))
    extension = TypedExtensionConfig(name=EGRESS_POLICY, typed_config=pack(config))
    return Resource.of(TypeUrl.EXTENSION_CONFIG, EGRESS_POLICY, bytes(extension))


def _header(name: str, value: str) -> Permission:
    return Permission(header=HeaderMatcher(name=name, string_match=StringMatcher(exact=value)))


def _bearer(session: str) -> Principal:
    return Principal(authenticated=PrincipalAuthenticated(principal_name=StringMatcher(exact=session)))
