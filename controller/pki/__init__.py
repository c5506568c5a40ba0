"""The private certificate authority of one Longshore installation."""

from controller.pki.authority import CertificateAuthority, KeyPair

__all__ = ["CertificateAuthority", "KeyPair"]
