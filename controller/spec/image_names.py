"""Names of images, as registries and Podman take them.

The grammar: https://github.com/distribution/reference/blob/main/reference.go, less what no base has or what would give
one registry two names: registries in upper case, IPv6 addresses, ports that begin with 0, digests other than sha256.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

# No look-around: the form hands this to other engines. What stands before the first slash is a registry where it has a
# dot or a port; so a first part of a path has neither.
_WORD = "[a-z0-9]+"
_PLAIN = f"{_WORD}(?:(?:_|__|-+){_WORD})*"
_PART = rf"{_WORD}(?:(?:[._]|__|-+){_WORD})*"
_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PORT = ":(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})+(?:{_PORT})?|{_LABEL}{_PORT})"
IMAGE = (
    rf"^(?:{_PART}|(?:{_REGISTRY}|{_PLAIN})(?:/{_PART})+)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[a-f0-9]{64})?$"
)
# Of registry and path together.
MAX_NAME = 255


def full_name(image: str) -> str:
    """The name with registry and tag, as Docker reads short names."""
    first, slash, rest = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    elif first == "docker.io" and "/" not in rest:
        image = f"docker.io/library/{rest}"
    tagged = "@" in image or ":" in image.rpartition("/")[2]
    return image if tagged else f"{image}:latest"


def split_name(image: str) -> tuple[str, str]:
    """Registry and path; and the tag or, where there is one, the digest: "" where it has neither."""
    name, _, digest = image.partition("@")
    # A colon before the last slash is that of a port.
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}", digest or tag


def _of_usual_length(value: str) -> str:
    if len(split_name(full_name(value))[0]) > MAX_NAME:
        raise ValueError(f"expected registry and path of at most {MAX_NAME} characters")
    return value


ImageName = Annotated[str, Field(pattern=IMAGE), AfterValidator(_of_usual_length)]
