"""Which files a request for a build may list."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

from controller.errors import InvalidRequest

# Of a file name and of a path in bytes, as Linux has them, and of folders in folders.
LONGEST_NAME, LONGEST_PATH, DEEPEST_PATH = 255, 2000, 64


def check_listed(wanted: Sequence[str], listed: Collection[str]) -> None:
    """Raises InvalidRequest where the listed paths are not those that `build.files` names, or make no tree."""
    check_tree(listed)
    present = set(listed)
    entries, ordered = set(wanted), sorted(present)
    for path in ordered:
        if "." not in entries and path not in entries and not any(folder in entries for folder in _above(path)):
            raise InvalidRequest("files", f"{path!r} is not named by build.files of the spec")
    for entry in entries:
        if entry != "." and entry not in present and not _has_below(ordered, entry):
            raise InvalidRequest("files", f"build.files names {entry!r}, and no such file was sent")
    if "." in entries and not ordered:
        raise InvalidRequest("files", "build.files names '.', and no file was sent")


def check_tree(listed: Collection[str]) -> None:
    """Raises InvalidRequest where the paths are not plain, or make no tree."""
    for path in listed:
        _check_path(path)
    if len(present := set(listed)) != len(listed):
        raise InvalidRequest("files", "a path is listed twice")
    for path in sorted(present):
        if inside := next((folder for folder in _above(path) if folder in present), None):
            raise InvalidRequest("files", f"{inside!r} is listed as a file and has files below it, such as {path!r}")


def _check_path(path: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts) or "\0" in path:
        raise InvalidRequest("files", f"{path[:200]!r} is not a plain relative path, such as model/digits.onnx")
    if len(path.encode()) > LONGEST_PATH or len(parts) > DEEPEST_PATH:
        limits = f"at most {LONGEST_PATH} bytes and {DEEPEST_PATH} levels are allowed"
        raise InvalidRequest("files", f"{path[:200]!r}... is too long; {limits}")


def _above(path: str) -> Iterator[str]:
    """The folders in which a file lies."""
    at = path.find("/")
    while at != -1:
        yield path[:at]
        at = path.find("/", at + 1)


def _has_below(ordered: Sequence[str], folder: str) -> bool:
    at = bisect_left(ordered, f"{folder}/")
    return at < len(ordered) and ordered[at].startswith(f"{folder}/")
