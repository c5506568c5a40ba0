"""Certificates: a root key that stays on the controller, server certificates, client certificates that name devices.

ECDSA P-256 throughout. Times allow for clocks that are an hour behind. Formats: X.509 (RFC 5280), PKCS#10 (RFC 2986).
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.files import write_durably

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=825)
CLIENT_LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(hours=1)


class InvalidCertificateRequest(ValueError):
    """A CSR that cannot be signed; the text says why."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate_pem: str
    key_pem: str

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes `<name>.crt` and `<name>.key` (mode 0600); their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        write_durably(key, self.key_pem.encode(), 0o600)
        write_durably(certificate, self.certificate_pem.encode(), 0o644)
        return certificate, key


class CertificateAuthority:
    """Signs certificates with the installation's root key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def create(cls, folder: Path) -> "CertificateAuthority":
        """A new authority, stored in `folder` as `ca.crt` and `ca.key`; FileExistsError where there is one."""
        if (folder / "ca.crt").exists():
            raise FileExistsError(f"{folder / 'ca.crt'} exists already")
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Longshore CA")
        builder = _builder(name, name, key.public_key(), CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        authority = cls(certificate, key)
        KeyPair(authority.certificate_pem, _key_pem(key)).write(folder, "ca")
        return authority

    @classmethod
    def load(cls, folder: Path) -> "CertificateAuthority":
        """The authority that `create` stored; FileNotFoundError where there is none."""
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{folder / 'ca.key'} is not an elliptic curve key")
        return cls(certificate, key)

    def issue_server(self, names: Sequence[str]) -> KeyPair:
        """A certificate for a server that is reached under these host names and IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(_name(names[0]), key.public_key(), SERVER_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
        return KeyPair(self._sign(builder), _key_pem(key))

    def issue_client(self, common_name: str) -> KeyPair:
        """A certificate for a client that bears this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(_name(common_name), key.public_key(), CLIENT_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)
        return KeyPair(self._sign(builder), _key_pem(key))

    def sign_request(self, request_pem: str, common_name: str, lifetime: timedelta = CLIENT_LIFETIME) -> str:
        """A client certificate (PEM) for the key of a PKCS#10 request. The name that the request asks for is ignored.

        Raises InvalidCertificateRequest for a malformed request, a bad signature, or another kind of key than P-256.
        """
        key = _requested_key(request_pem)
        return self._sign(self._leaf(_name(common_name), key, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH))

    def _leaf(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta, usage: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        builder = _builder(subject, self._certificate.subject, key, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(x509.ExtendedKeyUsage([usage]), False).add_extension(issuer, False)

    def _sign(self, builder: x509.CertificateBuilder) -> str:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_hash(request_pem: str) -> str:
    """Names the key of a PKCS#10 request, whose owner has proved to have it. Raises as `sign_request`."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(_requested_key(request_pem).public_bytes(encoding, form)).hexdigest()


def _requested_key(request_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature) as error:
        raise InvalidCertificateRequest(f"not a PKCS#10 request in PEM: {error}") from error
    if not valid:
        raise InvalidCertificateRequest("its signature does not match its key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidCertificateRequest("its key is not on the curve P-256")
    return key


def renewal_due(certificate_pem: bytes, now: datetime) -> bool:
    """Whether two thirds of a certificate's life, which begins with its signing, are over. True for what is none."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        return True
    begin = certificate.not_valid_before_utc + CLOCK_SKEW
    return now >= begin + (certificate.not_valid_after_utc - begin) * 2 / 3


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + lifetime)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
