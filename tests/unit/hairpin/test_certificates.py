from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hairpin.certificate_reading import Names, certificate_names
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SHA256 = hashes.SHA256()


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("hairpin", lifetime=timedelta(days=1), now=NOW)


def request_for(key, *, subject: str = "mallory", algorithm=SHA256) -> x509.CertificateSigningRequest:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, algorithm)
    )


def pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def parsed(chain: str) -> x509.Certificate:
    (certificate,) = x509.load_pem_x509_certificates(chain.encode())
    return certificate


def test_a_request_yields_a_certificate_of_its_key_under_the_ca(authority):
    key, request = new_key_and_request()
    signed = authority.sign(request, dns=["alice"], lifetime=5 * MINUTE, now=NOW)
    leaf = parsed(signed.chain)
    leaf.verify_directly_issued_by(parsed(authority.certificate))
    private = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert leaf.public_key() == private.public_key()
    assert private.curve.name == "secp256r1"


def test_validity_is_what_is_reported_and_backdated(authority):
    signed = authority.sign(new_key_and_request()[1], dns=["a"], lifetime=5 * MINUTE, now=NOW.replace(microsecond=999))
    leaf = parsed(signed.chain)
    assert (signed.not_before, signed.not_after) == (NOW - MINUTE, NOW + 5 * MINUTE)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (signed.not_before, signed.not_after)


def test_a_certificate_never_outlives_its_ca(authority):
    signed = authority.sign(new_key_and_request()[1], dns=["a"], lifetime=timedelta(days=9), now=NOW)
    assert signed.not_after == parsed(authority.certificate).not_valid_after_utc == NOW + timedelta(days=1)


def test_an_expired_ca_refuses(authority):
    with pytest.raises(HairpinError, match="authority expired at 2026-05-02 12:00:00Z"):
        authority.sign(new_key_and_request()[1], dns=["a"], lifetime=MINUTE, now=NOW + timedelta(days=1))


def test_names_come_from_arguments_alone(authority):
    request = pem(request_for(ec.generate_private_key(ec.SECP256R1()), subject="mallory"))
    signed = authority.sign(
        request,
        dns=["alice"],
        uris=["spiffe://hairpin.local/ns/a/sa/b"],
        ips=["127.0.0.1", "::1"],
        lifetime=MINUTE,
        now=NOW,
    )
    leaf = parsed(signed.chain)
    assert certificate_names(signed.chain) == Names(
        dns=("alice",), uris=("spiffe://hairpin.local/ns/a/sa/b",), ips=("127.0.0.1", "::1")
    )
    assert leaf.subject == x509.Name([])
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_usages_fit_both_roles_of_tls(authority):
    for key, encipherment in (
        (ec.generate_private_key(ec.SECP256R1()), False),
        (rsa.generate_private_key(65537, 2048), True),
    ):
        leaf = parsed(authority.sign(pem(request_for(key)), dns=["a"], lifetime=MINUTE, now=NOW).chain)
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, encipherment, False)
        assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_ca_signs_leaves_only(authority):
    certificate = parsed(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def test_serials_differ_for_the_same_request(authority):
    request = new_key_and_request()[1]
    serials = {
        parsed(authority.sign(request, dns=["a"], lifetime=MINUTE, now=NOW).chain).serial_number for _ in range(8)
    }
    assert len(serials) == 8


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "RSA-2048"],
)
def test_other_keys_that_envoy_takes_are_signed(authority, key):
    leaf = parsed(authority.sign(pem(request_for(key)), dns=["a"], lifetime=MINUTE, now=NOW).chain)
    assert leaf.public_key() == key.public_key()


def refused_requests() -> dict[str, tuple[str, str]]:
    genuine = new_key_and_request()[1]
    tampered = request_for(ec.generate_private_key(ec.SECP256R1())).public_bytes(serialization.Encoding.DER)
    # Another name under the signature of the old one.
    tampered = tampered.replace(b"mallory", b"malloRy")
    return {
        "empty": ("", "is no certificate request"),
        "not PEM": ("hello", "is no certificate request"),
        "a certificate": (CertificateAuthority.create("x").certificate, "is no certificate request"),
        "cut short": (genuine[:100], "is no certificate request"),
        "not ASCII": (genuine.replace("BEGIN", "BEGÏN"), "is no certificate request"),
        "huge": ("x" * 20_000, "is longer than 16384 characters"),
        "not proven": (pem(x509.load_der_x509_csr(tampered)), "is not signed by the key it contains"),
        "RSA too short": (pem(request_for(rsa.generate_private_key(65537, 1024))), "an RSA key of 1024 bits"),
        "RSA odd size": (pem(request_for(rsa.generate_private_key(65537, 2040))), "an RSA key of 2040 bits"),
        "P-521": (pem(request_for(ec.generate_private_key(ec.SECP521R1()))), "a key on curve secp521r1"),
        "curve": (pem(request_for(ec.generate_private_key(ec.SECP256K1()))), "a key on curve secp256k1"),
        "Ed25519": (pem(request_for(ed25519.Ed25519PrivateKey.generate(), algorithm=None)), "a key of kind Ed25519"),
        "Ed448": (pem(request_for(ed448.Ed448PrivateKey.generate(), algorithm=None)), "a key of kind Ed448"),
        "DSA": (pem(request_for(dsa.generate_private_key(2048))), "a key of kind DSA"),
    }


REFUSED = refused_requests()


@pytest.mark.parametrize("case", REFUSED)
def test_other_requests_are_refused_by_field(authority, case):
    request, problem = REFUSED[case]
    with pytest.raises(InvalidFieldError) as caught:
        authority.sign(request, dns=["a"], lifetime=MINUTE, now=NOW, field="spec.certificateRequest")
    assert caught.value.field == "spec.certificateRequest"
    assert problem in caught.value.problem
    assert "EC P-256" in caught.value.remedy
    assert len(str(caught.value)) < 400, "an error does not repeat the request"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dns", "*.shop"),
        ("dns", "Alice"),
        ("dns", "a..b"),
        ("dns", ""),
        ("dns", "a" * 64),
        ("dns", "a\n"),
        ("uris", "shop"),
        ("uris", "spiffe://a b"),
        ("ips", "localhost"),
    ],
)
def test_names_that_are_none_are_refused_by_field(authority, field, value):
    with pytest.raises(InvalidFieldError) as caught:
        authority.sign(new_key_and_request()[1], **{field: [value]}, lifetime=MINUTE, now=NOW)
    assert (caught.value.field, caught.value.value) == (field, value)


def test_a_certificate_needs_a_name_and_a_lifetime(authority):
    request = new_key_and_request()[1]
    with pytest.raises(InvalidFieldError, match="names nobody"):
        authority.sign(request, lifetime=MINUTE, now=NOW)
    with pytest.raises(InvalidFieldError, match="lifetime"):
        authority.sign(request, dns=["a"], lifetime=timedelta(0), now=NOW)


def test_a_saved_ca_is_the_same_and_private(authority, tmp_path):
    directory = tmp_path / "new" / "ca"
    authority.save(directory)
    authority.save(directory)
    loaded = CertificateAuthority.load(directory)
    assert loaded.certificate == authority.certificate
    leaf = parsed(loaded.sign(new_key_and_request()[1], dns=["a"], lifetime=MINUTE, now=NOW).chain)
    leaf.verify_directly_issued_by(parsed(authority.certificate))
    assert {path.name for path in directory.iterdir()} == {"tls.key", "tls.crt"}
    assert stat.S_IMODE((directory / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_missing_or_mixed_ca_is_an_error_for_the_user(authority, tmp_path):
    with pytest.raises(NotFoundError, match="no certificate authority in"):
        CertificateAuthority.load(tmp_path)
    authority.save(tmp_path)
    (tmp_path / "tls.crt").write_text(CertificateAuthority.create("other").certificate)
    with pytest.raises(HairpinError, match=r"tls\.crt is not of tls\.key"):
        CertificateAuthority.load(tmp_path)
    (tmp_path / "tls.key").write_text("no key")
    with pytest.raises(HairpinError, match="can't be read"):
        CertificateAuthority.load(tmp_path)


def test_names_of_what_is_no_certificate(authority):
    assert certificate_names(authority.certificate) == Names()
    with pytest.raises(InvalidFieldError, match="certificate: 'nonsense' is no certificate"):
        certificate_names("nonsense")


def test_a_private_file_replaces_a_public_one(tmp_path: Path):
    from hairpin.files import write_private

    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
