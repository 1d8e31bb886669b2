"""Keys, certificate requests and the small CAs that sign them. `hairpin.certificate_reading` says what is in them.

A request (CSR) contributes its key and nothing else: the names in a certificate are arguments of `CertificateAuthority.sign`,
decided by whoever checked the requester's identity. Every certificate serves both roles of TLS, since the two ends of a
tunnel are client of one handshake and server of another.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hairpin.certificate_reading import requested_key
from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError
from hairpin.files import write_private

BACKDATED = timedelta(seconds=60)
"""How long before its signing a certificate is valid already: room for clocks that differ."""
KEY_FILE = "tls.key"
CERTIFICATE_FILE = "tls.crt"
"""As in a Kubernetes Secret of type kubernetes.io/tls, so that a mounted one can be loaded."""

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What `CertificateAuthority.sign` hands out."""

    chain: str
    """PEM, the leaf first; without the CA's own certificate, which the peer has."""
    not_before: datetime
    not_after: datetime


def new_key_and_request() -> tuple[str, str]:
    """A new EC P-256 key (PKCS #8) and a request (CSR) for it, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _key_pem(key).decode(), request.public_bytes(serialization.Encoding.PEM).decode()


class CertificateAuthority:
    """A CA whose key is at hand: the mesh's own, or the one for sessions and agents."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls, common_name: str, *, lifetime: timedelta = timedelta(days=3650), now: datetime | None = None
    ) -> CertificateAuthority:
        """A new, self-signed CA that signs leaves only (path length 0)."""
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """The CA that `save` or a mounted Secret left in a directory.

        Raises:
            NotFoundError: a file is missing.
            HairpinError: a file can't be read, or the two do not belong together.
        """
        try:
            key, certificate = (directory / KEY_FILE).read_bytes(), (directory / CERTIFICATE_FILE).read_bytes()
        except FileNotFoundError as e:
            raise NotFoundError(f"no certificate authority in {directory}: {e.filename} does not exist") from e
        except OSError as e:
            raise HairpinError(f"the certificate authority in {directory} can't be read: {e}") from e
        return cls.parse(key, certificate, str(directory))

    @classmethod
    def parse(cls, key_pem: bytes, certificate_pem: bytes, where: str) -> CertificateAuthority:
        """The CA of two PEM texts.

        Args:
            key_pem: its key.
            certificate_pem: its certificate.
            where: they come from, for errors.

        Raises:
            HairpinError: one can't be read, or the two do not belong together.
        """
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
            certificate = x509.load_pem_x509_certificate(certificate_pem)
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise HairpinError(f"the certificate authority in {where} can't be read: {e}") from e
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise HairpinError(f"{where}: {KEY_FILE} is no EC key; a certificate authority's key must be one")
        if certificate.public_key() != key.public_key():
            raise HairpinError(f"{where}: {CERTIFICATE_FILE} is not of {KEY_FILE}; remove both to get a new pair")
        return cls(certificate, key)

    def save(self, directory: Path) -> None:
        """Writes key and certificate, readable by the owner alone; each appears whole or not at all."""
        write_private(directory / KEY_FILE, _key_pem(self._key))
        write_private(directory / CERTIFICATE_FILE, self.certificate.encode())

    @property
    def key(self) -> str:
        """The CA's key, PEM: a secret."""
        return _key_pem(self._key).decode()

    @property
    def certificate(self) -> str:
        """The CA's own certificate, PEM: what peers trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(
        self,
        request_pem: str,
        *,
        dns: Iterable[str] = (),
        uris: Iterable[str] = (),
        ips: Iterable[str] = (),
        lifetime: timedelta,
        now: datetime | None = None,
        field: str = "certificateRequest",
    ) -> Certificate:
        """A certificate for the request's key and the names given here; nothing else of the request is used.

        Args:
            request_pem: a CSR, signed by the key it contains (which proves that the requester has the key).
            dns: DNS names, lower case, no wildcards.
            uris: URIs, such as `spiffe://hairpin.local/ns/shop/sa/checkout`.
            ips: IP addresses.
            lifetime: counted from now; cut to the CA's own.
            now: the signing time; the present by default.
            field: where the request stands in the user's input, for errors.

        Raises:
            InvalidFieldError: the request or one of the names can't be used.
            HairpinError: the CA has expired.
        """
        key = requested_key(request_pem, field)
        # Certificates count whole seconds; cutting here makes what is returned what is signed.
        now = (now or datetime.now(UTC)).replace(microsecond=0)
        not_after = min(now + lifetime, self._certificate.not_valid_after_utc)
        if lifetime <= timedelta(0):
            raise InvalidFieldError("lifetime", str(lifetime), "is not positive", "give a time of at least a second")
        if not_after <= now:
            raise HairpinError(f"the certificate authority expired at {not_after:%Y-%m-%d %H:%M:%SZ}; renew it")
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(rsa_key=isinstance(key, rsa.RSAPublicKey)), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            # Critical, since the subject is empty (RFC 5280, 4.2.1.6).
            .add_extension(_alternative_names(dns, uris, ips), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        chain = leaf.public_bytes(serialization.Encoding.PEM).decode()
        return Certificate(chain=chain, not_before=now - BACKDATED, not_after=not_after)


def _alternative_names(dns: Iterable[str], uris: Iterable[str], ips: Iterable[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for name in dns:
        if not _DNS_NAME.fullmatch(name):
            raise InvalidFieldError("dns", name, "is no DNS name", "use lower case letters, digits, '-' and '.'")
        names.append(x509.DNSName(name))
    for uri in uris:
        if not _URI.fullmatch(uri):
            raise InvalidFieldError("uris", uri, "is no URI", "use SCHEME://REST in ASCII, without spaces")
        names.append(x509.UniformResourceIdentifier(uri))
    for ip in ips:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(ip)))
        except ValueError as e:
            raise InvalidFieldError("ips", ip, "is no IP address", "use one such as 127.0.0.1 or ::1") from e
    if not names:
        raise InvalidFieldError("dns", (), "names nobody", "give at least one DNS name, URI or IP address")
    return x509.SubjectAlternativeName(names)


def _key_usage(*, signs_certificates: bool = False, rsa_key: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=rsa_key,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
