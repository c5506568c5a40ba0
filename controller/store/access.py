"""Who may call: API tokens of users, one-time tokens of devices. Secrets are kept as SHA-256 hashes only."""

import time
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from controller.devices.model import EnrollToken, SpentToken
from controller.errors import AlreadyExists
from controller.store import schema
from longshore.errors import Reason


class Role(StrEnum):
    """ADMIN may do all; MEMBER all in the projects of one user id; DEVICE and NOBODY only what is made for them."""

    ADMIN = "admin"
    MEMBER = "member"
    DEVICE = "device"
    NOBODY = "nobody"


@dataclass(frozen=True)
class Principal:
    """Who calls. `user_id` bounds a MEMBER; `name` is the device's id for a DEVICE."""

    name: str
    role: Role
    user_id: str = ""


class AccessTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_api_token(self, secret_hash: str, principal: Principal) -> None:
        """Raises AlreadyExists where the name is taken."""
        values = {"name": principal.name, "role": principal.role.value, "user_id": principal.user_id}
        try:
            self._connection.execute(
                insert(schema.api_tokens).values(secret_hash=secret_hash, created=time.time(), **values)
            )
        except IntegrityError as error:
            raise AlreadyExists(Reason.NAME_TAKEN, f"there is a token named {principal.name} already") from error

    def principal(self, secret_hash: str) -> Principal | None:
        """Whose token has this hash."""
        table = schema.api_tokens
        row = self._connection.execute(select(table).where(table.c.secret_hash == secret_hash)).mappings().first()
        return None if row is None else Principal(row["name"], Role(row["role"]), row["user_id"])

    def remove_api_token(self, name: str) -> bool:
        """Whether there was one."""
        return self._connection.execute(delete(schema.api_tokens).where(schema.api_tokens.c.name == name)).rowcount > 0

    def add_enroll_token(self, token: EnrollToken) -> None:
        values = {**vars(token), "labels": dict(token.labels)}
        self._connection.execute(insert(schema.enroll_tokens).values(**values))

    def spend_enroll_token(self, secret_hash: str) -> EnrollToken | None:
        """The token, which is gone afterwards; None where it is unknown, spent or expired."""
        table = schema.enroll_tokens
        row = self._connection.execute(select(table).where(table.c.secret_hash == secret_hash)).mappings().first()
        if row is None:
            return None
        self._connection.execute(delete(table).where(table.c.secret_hash == secret_hash))
        return EnrollToken(**row) if row["expires"] > time.time() else None

    def note_spent(self, token: SpentToken) -> None:
        """Keeps who has spent a token, until it would have ended; those that have ended are forgotten."""
        table = schema.spent_tokens
        self._connection.execute(delete(table).where(table.c.expires <= time.time()))
        self._connection.execute(insert(table).values(**vars(token)))

    def spent_by(self, secret_hash: str, key_hash: str) -> str:
        """Id of the device that this token has made by this key; "" for none, and once the token would have ended."""
        table = schema.spent_tokens
        same = (table.c.secret_hash == secret_hash, table.c.key_hash == key_hash, table.c.expires > time.time())
        return str(self._connection.scalar(select(table.c.device_id).where(*same)) or "")
