"""The HTTP APIs' side of TLS."""

from __future__ import annotations

import ssl
import tempfile


def server_tls(key: str, chain: str) -> ssl.SSLContext:
    """A server's context, of key and chain in PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    write_certificate(context, key, chain)
    return context


def write_certificate(context: ssl.SSLContext, key: str, chain: str) -> None:
    """Have a context serve this from the next handshake on."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600; ssl reads files alone
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(file.name)
