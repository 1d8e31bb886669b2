"""Verdicts: discovered RBAC filters whose shadow rules say which session a request is of, and how routes read that. Pure.

Shadow rules decide nothing: they only write into the request's metadata which policy matched, one policy per session. Each
mode has a filter of its own, so that what one session takes another may have in copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core.v3 import ExtensionConfigSource, TypedExtensionConfig
from envoy_data_plane.envoy.config.rbac.v3 import Policy, Principal, RbacAction
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as RbacRules
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as RbacFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    StringMatcher,
    ValueMatcher,
)

from xds_server.generate.build import ads, pack
from xds_server.generate.match import permission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hairpin.model.match import Match

RBAC_TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"

NAMESPACE = "envoy.filters.http.rbac"
"""The metadata namespace of RBAC filters. Ours have keys of their own, by the prefix of their shadow rules."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One mode's verdict."""

    kind: str
    """In the discovered filter's name."""
    prefix: str
    """Of its keys in the metadata."""

    def filter_name(self, port: int) -> str:
        """The ECDS resource's name: a sidecar with several steered ports has one each."""
        return f"hairpin.{self.kind}.{port}"

    @property
    def found(self) -> MetadataMatcher:
        """A route's condition: some session matched."""
        return MetadataMatcher(
            filter=NAMESPACE,
            path=[MetadataMatcherPathSegment(key=f"{self.prefix}shadow_engine_result")],
            value=ValueMatcher(string_match=StringMatcher(exact="allowed")),
        )

    @property
    def session(self) -> str:
        """The format string of the session that matched."""
        return f"%DYNAMIC_METADATA({NAMESPACE}:{self.prefix}shadow_effective_policy_id)%"

    def discovered(self, port: int) -> HttpFilter:
        """The filter's place in the chain.

        Without `default_config` and `apply_default_config_without_warming` every request would get 500 until the resource
        exists.
        """
        return HttpFilter(
            name=self.filter_name(port),
            config_discovery=ExtensionConfigSource(
                config_source=ads(),
                type_urls=[RBAC_TYPE],
                default_config=pack(RbacFilter()),
                apply_default_config_without_warming=True,
            ),
        )

    def resource(self, port: int, matches: Mapping[str, Match]) -> TypedExtensionConfig:
        """The filter itself: a policy for each session; without any, one that matches nothing."""
        policies = {
            session: Policy(permissions=[permission(match)], principals=[Principal(any=True)])
            for session, match in matches.items()
        }
        rules = RbacRules(action=RbacAction.ALLOW, policies=policies) if policies else None
        config = RbacFilter(shadow_rules=rules, shadow_rules_stat_prefix=self.prefix)
        return TypedExtensionConfig(name=self.filter_name(port), typed_config=pack(config))


TAKEN = Verdict("match", "hairpin_")
"""Whose request it is to answer."""
COPIED = Verdict("mirror", "hairpin_mirror_")
"""Who gets a copy."""
