"""The folder of trusted certificates, as update-ca-certificates and `openssl rehash` would make it."""

import base64
import hashlib
from collections.abc import Iterator, Mapping

SHARED = "/usr/share/ca-certificates"
# ASN.1 string types and their encodings; OpenSSL compares these without regard to case and spaces.
STRINGS = {
    0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be",
}  # fmt: skip
UTF8_STRING, SEQUENCE, SET, EXPLICIT_VERSION = 0x0C, 0x30, 0x31, 0xA0


def trusted_folder(certificates: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """From paths of PEM files: the bundle of all, and the links by name."""
    bundle = b""
    links: dict[str, str] = {}
    for path in sorted(certificates, key=lambda path: path.rpartition("/")[2]):
        name = path.rpartition("/")[2].removesuffix(".crt") + ".pem"
        content = certificates[path]
        bundle += content if content.endswith(b"\n") else content + b"\n"
        links[name] = path
        links[_free(subject_hash(content), links)] = name
    return bundle, links


def subject_hash(pem: bytes) -> str:
    """As OpenSSL names a certificate in a folder: X509_NAME_hash_ex(3)."""
    names = b"".join(_tlv(SET, _canonical_set(content)) for _, content in _parts(_subject(pem)))
    digest = hashlib.sha1(names, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _free(name: str, taken: Mapping[str, str]) -> str:
    return next(f"{name}.{number}" for number in range(1000) if f"{name}.{number}" not in taken)


def _canonical_set(content: bytes) -> bytes:
    pairs = []
    for _, pair in _parts(content):
        (oid_tag, oid), (tag, value) = _parts(pair)
        if tag in STRINGS:
            text = " ".join(value.decode(STRINGS[tag]).strip().split())
            # Only ASCII letters have a case for OpenSSL.
            lowered = "".join(letter.lower() if letter.isascii() else letter for letter in text)
            tag, value = UTF8_STRING, lowered.encode()
        pairs.append(_tlv(SEQUENCE, _tlv(oid_tag, oid) + _tlv(tag, value)))
    return b"".join(sorted(pairs))


def _subject(pem: bytes) -> bytes:
    """RFC 5280: 4.1. Read by hand, since stricter readers refuse certificates that have long been trusted."""
    text = pem.decode("ascii").partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
    ((_, certificate),) = _parts(base64.b64decode(text))
    _, signed = next(_parts(certificate))
    fields = [content for tag, content in _parts(signed) if tag != EXPLICIT_VERSION]
    # Serial number, algorithm, issuer, validity, subject.
    return fields[4]


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. X.690: 8.1."""
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[position : position + count], "big")
            position += count
        yield tag, der[position : position + length]
        position += length


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
