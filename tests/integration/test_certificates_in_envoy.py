"""Our certificates in Envoy's hands, in both roles of TLS: which keys may be signed is Envoy's to say."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hairpin.certificate_reading import certificate_names
from hairpin.certificates import CertificateAuthority
from hairpin.envoy import config
from hairpin.envoy.failure import RefusedError
from hairpin.envoy.process import ManagedEnvoy, validate
from hairpin.errors import InvalidFieldError
from tests.support.envoy import HOST, answer, http_listener, static

pytestmark = pytest.mark.envoy

SIGNED = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
}
REFUSED = {
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture(scope="module")
def authority():
    return CertificateAuthority.create("mesh")


def request_of(key) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def pem(key) -> str:
    format_ = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, format_, serialization.NoEncryption()).decode()


def server(port: int, authority: CertificateAuthority, key: str, chain: str) -> config.Config:
    """A listener that demands a client's certificate of the CA, and tells the client's name."""
    context = {
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            ],
            "validation_context": {"trusted_ca": {"inline_string": authority.certificate}},
        },
    }
    said = {"header": {"key": "client", "value": "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_DNS_SAN%"}}
    listener = http_listener(port, answer("hello") | {"response_headers_to_add": [said]})
    listener["filter_chains"][0]["transport_socket"] = config.typed(
        "envoy.transport_sockets.tls", "extensions.transport_sockets.tls.v3.DownstreamTlsContext", **context
    )
    return static(listener)


def client(tmp_path, authority, key: str, chain: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate)
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # the verdict on a weak key shall be Envoy's
    (tmp_path / "client.pem").write_text(key + chain)
    context.load_cert_chain(tmp_path / "client.pem")
    return context


async def ask(port: int, context: ssl.SSLContext, name: str) -> str:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=name)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return (await reader.readuntil(b"hello")).decode()
    finally:
        writer.close()


@pytest.mark.parametrize("kind", SIGNED)
async def test_what_we_sign_works_in_both_roles(kind, authority, ports, tmp_path):
    key, port = SIGNED[kind](), ports()
    request = request_of(key)
    lifetime = timedelta(minutes=5)
    spiffe = "spiffe://hairpin.local/ns/shop/sa/checkout"
    served = authority.sign(request, dns=["xds-server"], ips=[HOST], lifetime=lifetime)
    shown = authority.sign(request, uris=[spiffe], dns=["alice"], lifetime=lifetime)
    async with ManagedEnvoy("e", server(port, authority, pem(key), served.chain), tmp_path / "e"):
        for name in ("xds-server", HOST):
            response = await ask(port, client(tmp_path, authority, pem(key), shown.chain), name)
            assert f"client: {spiffe}|alice\r\n" in response
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await ask(port, client(tmp_path, authority, pem(key), shown.chain), "alice")


async def test_envoy_refuses_who_is_of_another_ca_or_expired(authority, ports, tmp_path):
    key, port = SIGNED["P-256"](), ports()
    other = CertificateAuthority.create("mesh")
    lifetime = timedelta(minutes=5)
    served = authority.sign(request_of(key), dns=["a"], lifetime=lifetime)
    expired = datetime.now(UTC) - timedelta(minutes=10)
    early = CertificateAuthority.create("early", now=expired)
    strangers = {
        "of another CA of the same name": other.sign(request_of(key), dns=["b"], lifetime=lifetime),
        "of the CA, and expired": authority.sign(request_of(key), dns=["b"], lifetime=lifetime, now=expired),
        "of no known CA": early.sign(request_of(key), dns=["b"], lifetime=lifetime),
    }
    async with ManagedEnvoy("e", server(port, authority, pem(key), served.chain), tmp_path / "e") as envoy:
        for stranger in strangers.values():
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                await ask(port, client(tmp_path, authority, pem(key), stranger.chain), "a")
        stats = await envoy.admin.stats(r"ssl\.fail_verify_error$")
        assert sum(stats.values()) == len(strangers)


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_we_refuse_to_sign_no_one_can_show_to_envoy(kind, authority, ports, tmp_path):
    key, good, port = REFUSED[kind](), SIGNED["P-256"](), ports()
    with pytest.raises(InvalidFieldError):
        authority.sign(request_of(key), dns=["a"], lifetime=timedelta(minutes=5))
    chain = signed_anyway(authority, key)
    assert certificate_names(chain).dns == ("a",)
    served = authority.sign(request_of(good), dns=["a"], lifetime=timedelta(minutes=5))
    async with ManagedEnvoy("e", server(port, authority, pem(good), served.chain), tmp_path / "e"):
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await show(port, tmp_path, authority, key, chain)


async def test_a_short_rsa_key_is_refused_by_envoy_as_its_own_only(authority, ports, tmp_path):
    """A peer's is accepted: the CA is the only guard against it."""
    key, good, port = rsa.generate_private_key(65537, 1024), SIGNED["P-256"](), ports()
    chain = signed_anyway(authority, key)
    with pytest.raises(RefusedError, match="only RSA certificates with 2048-bit or larger keys are supported"):
        await validate(server(port, authority, pem(key), chain))
    served = authority.sign(request_of(good), dns=["a"], lifetime=timedelta(minutes=5))
    async with ManagedEnvoy("e", server(port, authority, pem(good), served.chain), tmp_path / "e"):
        assert "hello" in await show(port, tmp_path, authority, key, chain)
    with pytest.raises(InvalidFieldError, match="an RSA key of 1024 bits"):
        authority.sign(request_of(key), dns=["a"], lifetime=timedelta(minutes=5))


async def show(port, tmp_path, authority, key, chain) -> str:
    return await ask(port, client(tmp_path, authority, pem(key), chain), "a")


def signed_anyway(authority, key) -> str:
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority._certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a")]), critical=True)
        .sign(authority._key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
