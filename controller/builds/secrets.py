"""Values of build-time secrets: sealed from the request until the build has ended, opened only for the builder."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from controller.builds.model import BuildFailed
from controller.errors import InvalidRequest
from controller.files import write_durably

LARGEST_VALUE = 64 * 1024


class SecretBox:
    """Seals with the key in this file, which is made when it is first needed, for this user only."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, values: Mapping[str, bytes]) -> bytes | None:
        """What can be stored; None for no values."""
        if not values:
            return None
        plain = {name: base64.b64encode(value).decode() for name, value in values.items()}
        return Fernet(self._key()).encrypt(json.dumps(plain).encode())

    def open(self, sealed: bytes | None) -> Mapping[str, bytes]:
        """The values. Raises BuildFailed where the key is another one."""
        if sealed is None:
            return {}
        try:
            plain = json.loads(Fernet(self._key()).decrypt(sealed))
        except InvalidToken as error:
            message = "the build's secrets cannot be read, since the controller's key is another one; send them again"
            raise BuildFailed("SecretsUnreadable", message) from error
        return {name: base64.b64decode(value) for name, value in plain.items()}

    def fingerprint(self, value: bytes) -> str:
        """Tells equal values from others without telling anything of them to who lacks the key."""
        return hmac.new(self._key(), value, hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        try:
            return self._key_file.read_bytes()
        except FileNotFoundError:
            key = Fernet.generate_key()
            write_durably(self._key_file, key, 0o600)
            return key


def check_secrets(wanted: Sequence[str], given: Mapping[str, bytes]) -> None:
    """Raises InvalidRequest where these are not the values of exactly the secrets that `build.secrets` names."""
    if unknown := sorted(given.keys() - set(wanted)):
        known = f"it names {', '.join(wanted)}" if wanted else "it names none"
        raise InvalidRequest("secrets", f"build.secrets of the spec does not name {unknown[0]!r}; {known}")
    if missing := [name for name in wanted if name not in given]:
        raise InvalidRequest("secrets", f"build.secrets names {missing[0]!r}, and no value for it was sent")
    for name, value in given.items():
        if len(value) > LARGEST_VALUE:
            raise InvalidRequest(
                "secrets", f"the value of {name!r} has {len(value)} bytes; {LARGEST_VALUE} are allowed"
            )
