"""Certificates."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.pki import CertificateAuthority
from controller.pki.authority import InvalidCertificateRequest


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path)


def test_the_name_in_a_certificate_is_the_controllers_choice(authority: CertificateAuthority) -> None:
    signed = authority.sign_request(request(ec.generate_private_key(ec.SECP256R1()), "controller"), "dev-1")
    certificate = x509.load_pem_x509_certificate(signed.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == ["dev-1"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem.encode()))


def test_a_device_certificate_is_for_clients_only(authority: CertificateAuthority) -> None:
    signed = authority.sign_request(request(ec.generate_private_key(ec.SECP256R1()), "x"), "dev-1")
    certificate = x509.load_pem_x509_certificate(signed.encode())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_what_is_not_a_request_is_refused_with_the_reason(authority: CertificateAuthority) -> None:
    with pytest.raises(InvalidCertificateRequest, match=r"PKCS#10"):
        authority.sign_request("nonsense", "dev-1")
    with pytest.raises(InvalidCertificateRequest, match=r"P-256"):
        authority.sign_request(request(rsa.generate_private_key(65537, 2048), "x"), "dev-1")


def test_keys_are_readable_by_their_owner_only(authority: CertificateAuthority, tmp_path: Path) -> None:
    authority.issue_server(["localhost"]).write(tmp_path, "server")
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_an_authority_is_never_replaced(authority: CertificateAuthority, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        CertificateAuthority.create(tmp_path)
    assert CertificateAuthority.load(tmp_path).certificate_pem == authority.certificate_pem
