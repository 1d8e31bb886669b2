"""Mutual TLS between sidecars, by names that each proxy's bootstrap gives a certificate: Istio's `default` and `ROOTCA`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from xds_server.generate.build import NO_TIMEOUT, transport_socket

if TYPE_CHECKING:
    from envoy_data_plane.envoy.config.core.v3 import TransportSocket

SOCKET = "envoy.transport_sockets.tls"


def downstream_tls() -> TransportSocket:
    """A sidecar's inbound side: a client certificate of the mesh is demanded; who it is, authorization decides."""
    common = CommonTlsContext(
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[SdsSecretConfig(name="default")],
        validation_context_sds_secret_config=SdsSecretConfig(name="ROOTCA"),
    )
    return transport_socket(SOCKET, DownstreamTlsContext(common_tls_context=common, require_client_certificate=True))


def upstream_tls(identity: str) -> TransportSocket:
    """A sidecar's outbound side: the server must bear this SPIFFE ID. ALPN follows the pool's protocol."""
    return transport_socket(SOCKET, UpstreamTlsContext(common_tls_context=_common(identity)))


def istio_tls(identity: str, sni: str) -> TransportSocket:
    """The same in an Istio mesh: certificates come from the sidecar's own agent, and ALPN says that the mesh calls."""
    return transport_socket(
        SOCKET, UpstreamTlsContext(common_tls_context=_common(identity, _sidecars_agent(), ["istio"]), sni=sni)
    )


def _sidecars_agent() -> ConfigSource:
    """Where Istio's sidecars get their secrets: a cluster of their bootstrap."""
    service = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name="sds-grpc"))
    return ConfigSource(
        api_config_source=ApiConfigSource(
            api_type=ApiConfigSourceApiType.GRPC,
            transport_api_version=ApiVersion.V3,
            grpc_services=[service],
            set_node_on_first_message_only=True,
        ),
        initial_fetch_timeout=NO_TIMEOUT,
        resource_api_version=ApiVersion.V3,
    )


def _common(identity: str, source: ConfigSource | None = None, alpn: list[str] | None = None) -> CommonTlsContext:
    san = SubjectAltNameMatcher(san_type=SubjectAltNameMatcherSanType.URI, matcher=StringMatcher(exact=identity))
    combined = CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=CertificateValidationContext(match_typed_subject_alt_names=[san]),
        validation_context_sds_secret_config=SdsSecretConfig(name="ROOTCA", sds_config=source),
    )
    return CommonTlsContext(
        alpn_protocols=alpn or [],
        tls_certificate_sds_secret_configs=[SdsSecretConfig(name="default", sds_config=source)],
        combined_validation_context=combined,
    )
