"""Values of build-time secrets: sealed from the request until the build has ended, opened only for the builder."""

from collections.abc import Mapping, Sequence

from controller.builds.model import BuildFailed
from controller.errors import InvalidRequest
from controller.sealing import SecretBox, Unreadable, check_given


def opened(box: SecretBox, sealed: bytes | None) -> Mapping[str, bytes]:
    """The values for a builder. Raises BuildFailed where the key is another one."""
    try:
        return box.open(sealed)
    except Unreadable as error:
        message = "the build's secrets cannot be read, since the controller's key is another one; send them again"
        raise BuildFailed("SecretsUnreadable", message) from error


def check_secrets(wanted: Sequence[str], given: Mapping[str, bytes], field: str = "secrets") -> None:
    """Raises InvalidRequest where these are not the values of exactly the secrets that `build.secrets` names; `field`
    of the request has them."""
    check_given(field, "build.secrets", wanted, given)
    if missing := [name for name in wanted if name not in given]:
        raise InvalidRequest(field, f"build.secrets names {missing[0]!r}, and no value for it was sent")
