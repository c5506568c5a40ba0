"""Values of `deploy.secrets`: sealed with the revision that they belong to, opened only for a device that runs it."""

from collections.abc import Mapping

from controller.errors import InvalidRequest
from controller.sealing import SecretBox, Unreadable, check_given
from controller.spec.model import Spec

FIELD, PART = "secrets", "deploy.secrets"


def check_secrets(spec: Spec, given: Mapping[str, bytes]) -> None:
    """Raises InvalidRequest for a value that the spec does not name, or that is too large."""
    check_given(FIELD, PART, [secret.name for secret in spec.deploy.secrets], given)


def sealed_values(box: SecretBox, spec: Spec, given: Mapping[str, bytes], before: bytes | None) -> bytes | None:
    """What is stored of a revision: a value for each secret that its spec names, from the request, else as the revision
    before has it (`before`, sealed). None where the spec names none. Raises InvalidRequest where there is none."""
    names = [secret.name for secret in spec.deploy.secrets]
    missing = [name for name in names if name not in given]
    kept = _kept(box, before, missing[0]) if missing else {}
    if lost := [name for name in missing if name not in kept]:
        message = f"{PART} names {lost[0]!r}, and neither this request nor the revision before has a value for it"
        raise InvalidRequest(FIELD, message)
    return box.seal({name: given[name] if name in given else kept[name] for name in names})


def _kept(box: SecretBox, before: bytes | None, name: str) -> Mapping[str, bytes]:
    try:
        return box.open(before)
    except Unreadable:
        message = (
            f"{PART} names {name!r}, and the value that the revision before has cannot be read, since the controller's "
            "key (secrets.key) is another one; send it again"
        )
        raise InvalidRequest(FIELD, message) from None
