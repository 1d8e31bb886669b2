"""The test cluster's own certificates: a CA, servers' and users'."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=2)


class Pki:
    """A CA in a folder: `ca.crt`, `ca.key`, and what it signs beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test cluster")])
        self.certificate = folder / "ca.crt"
        self.key = folder / "ca.key"
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        _write(self.key, self.certificate, self._key, builder.sign(self._key, hashes.SHA256()))

    def server(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """A certificate for addresses and DNS names, and its key: their files."""
        names = [_general_name(host) for host in hosts]
        return self._issue(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), names)

    def user(self, name: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """A client certificate by which the API server knows a user, and its key: their files."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._issue("user-" + name.replace(":", "-"), subject, [])

    def _issue(self, file: str, subject: x509.Name, names: Sequence[x509.GeneralName]) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(subject, key.public_key()).add_extension(usage, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate, private = self._folder / f"{file}.crt", self._folder / f"{file}.key"
        _write(private, certificate, key, builder.sign(self._key, hashes.SHA256()))
        return certificate, private

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + _LIFETIME)
        )


def service_account_key(path: Path) -> Path:
    """The key that signs service accounts' tokens."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_private(path, key)
    return path


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(private: Path, public: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _write_private(private, key)
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    path.chmod(0o600)
