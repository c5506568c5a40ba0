"""Values of secrets: which may come with a request, and how they are kept, sealed with the controller's own key."""

import base64
import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from controller.errors import InvalidRequest
from controller.files import write_durably

LARGEST_VALUE = 64 * 1024


class Unreadable(Exception):
    """What is stored was sealed with another key than the present one."""


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
        """The values. Raises Unreadable."""
        if sealed is None:
            return {}
        try:
            plain = json.loads(Fernet(self._key()).decrypt(sealed))
        except InvalidToken as error:
            raise Unreadable(f"{self._key_file} is not the key that it was sealed with") from error
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


def check_given(field: str, part: str, named: Collection[str], given: Mapping[str, bytes]) -> None:
    """Raises InvalidRequest for a value in this field of a request that this part of the spec does not name, or that
    is too large. The text has no value."""
    if unknown := sorted(given.keys() - set(named)):
        known = f"it names {', '.join(named)}" if named else "it names none"
        raise InvalidRequest(field, f"{part} of the spec does not name {unknown[0]!r}; {known}")
    for name, value in given.items():
        if len(value) > LARGEST_VALUE:
            raise InvalidRequest(field, f"the value of {name!r} has {len(value)} bytes; {LARGEST_VALUE} are allowed")
