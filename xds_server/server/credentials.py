"""The server's TLS: both ends show a certificate, and a renewed one serves from the next handshake on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc

from xds_server.server.registry import PeerIdentity

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The server's certificate and whom it believes, all PEM.

    `chain` has the leaf first; `authorities` are the CAs that proxies' certificates may come from, one after another.
    """

    key: str = field(repr=False)
    chain: str
    authorities: str


def server_credentials(load: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Return credentials for mutual TLS.

    Args:
        load: called at once and then at each handshake, in a thread of gRPC's: it must be quick. If it raises, that is
            logged, and the certificate from before is used.
    """
    current = load()

    def reload() -> grpc.ServerCertificateConfiguration | None:
        nonlocal current
        try:
            loaded = load()
        except Exception:
            log.exception("the server's certificate could not be loaded: the one before it is used")
            return None
        if loaded == current:
            return None
        current = loaded
        return _configuration(loaded)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(current),
        reload,  # type: ignore[arg-type] # None means "as before" (grpc's documentation); the stubs don't know
        require_client_authentication=True,
    )


def peer_identity(auth_context: Mapping[str, Iterable[bytes]]) -> PeerIdentity:
    """Return who the peer is, from a call's authentication context."""
    return PeerIdentity(
        uris=tuple(uri.decode() for uri in auth_context.get("peer_uri", ())),
        dns=tuple(name.decode() for name in auth_context.get("peer_dns", ())),
    )


def _configuration(identity: ServerIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key.encode(), identity.chain.encode())], root_certificates=identity.authorities.encode()
    )
