"""What certificates and certificate requests say: their names, their keys, and whether a request can be signed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from hairpin.errors import InvalidFieldError

_MAX_REQUEST_LENGTH = 16 * 1024
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_RSA_BITS = range(2048, 4096 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The subject alternative names of a certificate."""

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()


def certificate_names(pem: str) -> Names:
    """The names in the first certificate of a PEM text.

    Raises:
        InvalidFieldError: it isn't one.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names()
    except ValueError as e:
        raise InvalidFieldError("certificate", _shown(pem), f"is no certificate ({e})", "give one in PEM") from e
    return Names(
        dns=tuple(names.get_values_for_type(x509.DNSName)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        ips=tuple(str(ip) for ip in names.get_values_for_type(x509.IPAddress)),
    )


def request_key(request_pem: str, field: str = "certificateRequest") -> str:
    """The digest of the key in a request that can be signed.

    Raises:
        InvalidFieldError: the request can't be used.
    """
    return _digest(requested_key(request_pem, field))


def certificate_key(pem: str) -> tuple[str, datetime]:
    """The digest of the key in the first certificate of a PEM text, as `request_key` has it, and when the certificate ends.

    Raises:
        InvalidFieldError: it isn't one.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return _digest(certificate.public_key()), certificate.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm) as e:
        raise InvalidFieldError("certificate", _shown(pem), f"is no certificate ({e})", "give one in PEM") from e


def requested_key(request_pem: str, field: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The key of a request that can be signed.

    Args:
        request_pem: a CSR, signed by the key it contains.
        field: where it stands in the user's input, for errors.

    Raises:
        InvalidFieldError: it can't be used.
    """
    remedy = "give a certificate request (CSR) in PEM, signed by its own EC P-256, P-384 or RSA (2048 to 4096) key"
    if len(request_pem) > _MAX_REQUEST_LENGTH:
        raise InvalidFieldError(field, _shown(request_pem), f"is longer than {_MAX_REQUEST_LENGTH} characters", remedy)
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise InvalidFieldError(field, _shown(request_pem), "is no certificate request", remedy) from e
    # The kind first: a huge RSA key would make the check of its signature expensive.
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise InvalidFieldError(field, _shown(request_pem), f"has a key on curve {key.curve.name}", remedy)
    elif not isinstance(key, rsa.RSAPublicKey):
        # Ed25519 among them: like P-521, no peer can show it to Envoy, which does not offer to verify it.
        kind = type(key).__name__.removesuffix("PublicKey").lstrip("_")
        raise InvalidFieldError(field, _shown(request_pem), f"has a key of kind {kind}", remedy)
    elif key.key_size not in _RSA_BITS:
        raise InvalidFieldError(field, _shown(request_pem), f"has an RSA key of {key.key_size} bits", remedy)
    try:
        proven = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        proven = False
    if not proven:
        raise InvalidFieldError(field, _shown(request_pem), "is not signed by the key it contains", remedy)
    return key


def _digest(key: CertificatePublicKeyTypes) -> str:
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def _shown(pem: str) -> str:
    """The beginning of it: an error must not repeat kilobytes."""
    return pem if len(pem) <= 60 else pem[:57] + "..."  # noqa: PLR2004
