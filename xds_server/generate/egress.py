"""The agent's egress policy: which sessions may use it. Pure.

An RBAC filter that the agent's Envoy discovers, keyed by the DNS SAN of the laptop's certificate: a session that ended is
refused at once, however long its certificate holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    Policy,
    Principal,
    PrincipalAuthenticated,
    RbacAction,
)
from envoy_data_plane.envoy.config.rbac.v3 import (
    Rbac as RbacRules,
)
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as RbacFilter
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from xds_server.generate.build import pack
from xds_server.model.resource import Resource
from xds_server.model.type_url import TypeUrl

if TYPE_CHECKING:
    from collections.abc import Iterable

EGRESS_POLICY = "hairpin.egress"


def egress_resource(sessions: Iterable[str]) -> Resource:
    """The policy for these sessions, by name; without any, everyone is refused."""
    policies = {
        name: Policy(permissions=[Permission(any=True)], principals=[_bearer(name)]) for name in sorted(sessions)
    }
    config = RbacFilter(rules=RbacRules(action=RbacAction.ALLOW, policies=policies))
    extension = TypedExtensionConfig(name=EGRESS_POLICY, typed_config=pack(config))
    return Resource.of(TypeUrl.EXTENSION_CONFIG, EGRESS_POLICY, bytes(extension))


def _bearer(session: str) -> Principal:
    return Principal(authenticated=PrincipalAuthenticated(principal_name=StringMatcher(exact=session)))
