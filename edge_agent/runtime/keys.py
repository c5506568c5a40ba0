"""Keys of a device, which never leave it, and requests for certificates."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Key) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def signing_request(key: Key) -> str:
    """PKCS#10 with an empty name: the controller chooses it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def read_key(text: bytes) -> Key | None:
    """The key of a PEM file; None where it is of another kind."""
    key = serialization.load_pem_private_key(text, None)
    return key if isinstance(key, Key) else None
