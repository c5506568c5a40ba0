"""Secrets that are handed out once and kept as hashes."""

import hashlib
import secrets


def new_secret() -> str:
    """256 random bits, safe in URLs and shells."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is stored of a secret. A plain hash suffices, since the secret has full entropy."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_id(prefix: str) -> str:
    """An unguessable id, such as "b-4f1c…"."""
    return f"{prefix}-{secrets.token_hex(8)}"
