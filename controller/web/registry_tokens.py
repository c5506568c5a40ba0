"""Tokens for the OCI registry, by its standard token protocol
(https://distribution.github.io/distribution/spec/auth/token/).

Two kinds, both JWTs signed with a key of their own, which no certificate of the installation's CA can stand in for:
a *credential* names a device or the controller and serves as the password at the token endpoint; an *access token*
is what the registry takes, for named repositories and a few minutes.
"""

import base64
import hashlib
import json
import re
import ssl
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.access import new_id
from controller.pki import CertificateAuthority
from controller.store.access import Principal, Role

ISSUER = "longshore"
CREDENTIAL_AUDIENCE = "longshore-registry-credential"
CREDENTIAL_LIFETIME = timedelta(hours=1)
ACCESS_LIFETIME = timedelta(minutes=5)
# What the address of the token endpoint ends with where it gives short tokens.
SHORT = "/short"
CONTROLLER = Principal("controller", Role.ADMIN)
SCOPE = re.compile(r"^repository:(?P<name>[a-z0-9._/-]{1,255}):(?P<actions>[a-z,*]{1,64})$")


@dataclass(frozen=True)
class Credential:
    """For HTTP basic authentication at the token endpoint."""

    username: str
    password: str
    expires: float


@dataclass(frozen=True)
class Scope:
    """Actions ("pull", "push") on one repository."""

    repository: str
    actions: tuple[str, ...]


def parse_scopes(values: Sequence[str]) -> list[Scope]:
    """The scopes of a token request; what is not a repository's is left out."""
    words = [word for value in values for word in value.split()]
    found = [match for word in words if (match := SCOPE.fullmatch(word))]
    return [Scope(match["name"], tuple(match["actions"].split(","))) for match in found]


class RegistryTokens:
    """Issues and checks both kinds of tokens."""

    def __init__(self, folder: Path) -> None:
        """`folder` has the signing key (`ca.key`) and its certificate (`ca.crt`), which the registry trusts."""
        self._key = (folder / "ca.key").read_text()
        self.certificate_file = folder / "ca.crt"
        certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        self._public_key = cast(ec.EllipticCurvePublicKey, certificate.public_key())
        self._key_id = _key_id(self._public_key)
        self._chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate_file.read_text())).decode()]

    @classmethod
    def create(cls, folder: Path) -> "RegistryTokens":
        """Makes the key. FileExistsError where there is one."""
        CertificateAuthority.create(folder)
        return cls(folder)

    def credential(self, principal: Principal) -> Credential:
        """A password for a device or the controller that ends by itself."""
        expires = time.time() + CREDENTIAL_LIFETIME.total_seconds()
        claims = {"role": principal.role.value, "aud": CREDENTIAL_AUDIENCE, "exp": int(expires)}
        return Credential(principal.name, self._sign({"sub": principal.name, **claims}), expires)

    def principal(self, username: str, password: str) -> Principal | None:
        """Whose credential this is; None where it is not ours, has ended, or names another."""
        try:
            claims = jwt.decode(
                password, self._public_key, algorithms=["ES256"], audience=CREDENTIAL_AUDIENCE, issuer=ISSUER
            )
        except jwt.InvalidTokenError:
            return None
        return Principal(username, Role(claims["role"])) if claims["sub"] == username else None

    def access_token(
        self,
        principal: Principal,
        service: str,
        scopes: Sequence[Scope],
        pullable: Collection[str],
        short: bool = False,
    ) -> str:
        """What the registry takes: all that was asked for the controller, for a device "pull" on `pullable`.

        `short`: names the key in place of bearing its certificate, for a registry that was given `key_set`.
        """
        granted = [(scope.repository, _granted(principal, scope, pullable)) for scope in scopes]
        access = [{"type": "repository", "name": name, "actions": actions} for name, actions in granted if actions]
        expires = int(time.time() + ACCESS_LIFETIME.total_seconds())
        return self._sign({"sub": principal.name, "aud": service, "exp": expires, "access": access}, short)

    def _sign(self, claims: dict[str, Any], short: bool = False) -> str:
        now = int(time.time())
        issued: dict[str, Any] = {"iss": ISSUER, "nbf": now - 60}
        headers: dict[str, Any] = {"x5c": self._chain}
        if short:
            # Each request of a push bears it. PyJWT leaves out an empty type.
            headers = {"kid": self._key_id, "typ": ""}
        else:
            issued |= {"iat": now, "jti": new_id("t")}
        return jwt.encode({**issued, **claims}, self._key, algorithm="ES256", headers=headers)


def key_set(certificate_file: Path) -> str:
    """A JSON Web Key Set (RFC 7517) with the key of short tokens, as the registry's setting `jwks` takes it."""
    key = x509.load_pem_x509_certificate(certificate_file.read_bytes()).public_key()
    described = jwt.algorithms.ECAlgorithm.to_jwk(cast(ec.EllipticCurvePublicKey, key), as_dict=True)
    return json.dumps({"keys": [{**described, "kid": _key_id(key), "alg": "ES256", "use": "sig"}]})


def _key_id(key: PublicKeyTypes) -> str:
    """As version 2 of the registry names the keys of the certificates that it trusts:
    https://github.com/docker/libtrust/blob/master/util.go, "keyIDFromCryptoKey"."""
    described = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    letters = base64.b32encode(hashlib.sha256(described).digest()[:30]).decode()
    return ":".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def _granted(principal: Principal, scope: Scope, pullable: Collection[str]) -> list[str]:
    if principal.role is Role.ADMIN:
        return [action for action in scope.actions if action in ("pull", "push", "delete", "*")]
    return ["pull"] if "pull" in scope.actions and scope.repository in pullable else []
