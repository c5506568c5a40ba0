"""Who this device is: its key, its certificate, and where its controller is.

`identity.json` is the point of commitment: it names the folder with the key and the certificates, and is replaced
atomically once all of it is on the disk. Whatever it does not name was left by an enrollment that was cut short.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime.files import sync_folder, write_durably

FILE_NAME = "identity.json"
FOLDER_PREFIX = "identity-"
LOCK_NAME = "agent.lock"
KEY_NAME = "device.key"
# Which enrollment a folder was made for.
ATTEMPT_NAME = "attempt"
VERSION = 1


class NotEnrolled(Exception):
    """The state folder has no identity; the text says what to do."""


class InvalidIdentity(Exception):
    """The stored identity cannot be used; the text says why and what to do."""


class AlreadyRunning(Exception):
    """Another process uses the state folder."""


@dataclass(frozen=True)
class Identity:
    """An enrolled device. The addresses are `host:port`; both servers ask for the certificate."""

    device_id: str
    device_name: str
    agent_address: str
    broker_address: str
    key_file: Path
    certificate_file: Path
    # The deployment's CA: it signed the certificates of controller, broker and registry.
    ca_file: Path
    # Marks what this machine runs as its own; stays when the machine becomes another device.
    owner: str


@dataclass(frozen=True)
class IdentityMaterial:
    """All of an identity before it is stored; PEM texts."""

    device_id: str
    device_name: str
    agent_address: str
    broker_address: str
    owner: str
    key: bytes
    certificate: bytes
    ca: bytes


def load_identity(state_dir: Path) -> Identity:
    """The stored identity. Raises NotEnrolled where there is none, InvalidIdentity where it is damaged."""
    try:
        record = json.loads((state_dir / FILE_NAME).read_text())
        return _identity(state_dir, record)
    except FileNotFoundError:
        hint = "run `enroll TOKEN` first"
        raise NotEnrolled(f"{state_dir} holds no identity; {hint}") from None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "enroll it again with --force"
        raise InvalidIdentity(f"cannot use {state_dir / FILE_NAME}: {error!r}; {hint}") from error


def is_enrolled(state_dir: Path) -> bool:
    return (state_dir / FILE_NAME).exists()


def _identity(state_dir: Path, record: dict[str, object]) -> Identity:
    if record["version"] != VERSION:
        raise ValueError(f"version {record['version']} is not {VERSION}")
    folder = state_dir / Path(str(record["folder"])).name
    identity = Identity(
        device_id=str(record["device_id"]),
        device_name=str(record["device_name"]),
        agent_address=str(record["agent_address"]),
        broker_address=str(record["broker_address"]),
        key_file=folder / KEY_NAME,
        certificate_file=folder / "device.crt",
        ca_file=folder / "ca.crt",
        owner=str(record["owner"]),
    )
    for path in (identity.key_file, identity.certificate_file, identity.ca_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    return identity


def prepare_folder(state_dir: Path, key: bytes, attempt: str = "") -> Path:
    """A new folder below `state_dir` that holds the key, durably. Nothing refers to it yet; `begun_folder` finds it by
    the name of the attempt."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = state_dir / f"{FOLDER_PREFIX}{os.urandom(8).hex()}"
    folder.mkdir(mode=0o700)
    write_durably(folder / KEY_NAME, key, 0o600)
    write_durably(folder / ATTEMPT_NAME, attempt.encode(), 0o600)
    sync_folder(state_dir)
    return folder


def begun_folder(state_dir: Path, attempt: str) -> Path | None:
    """The folder of an enrollment of this name whose outcome this machine does not know; its key is in it."""
    for file in sorted(state_dir.glob(f"{FOLDER_PREFIX}*/{ATTEMPT_NAME}")):
        if file.read_text() == attempt and file.parent.name != _current_folder(state_dir):
            return file.parent
    return None


def _current_folder(state_dir: Path) -> str:
    """The folder that the identity names; "" where there is none that can be used."""
    try:
        return load_identity(state_dir).key_file.parent.name
    except (NotEnrolled, InvalidIdentity):
        return ""


def commit_identity(state_dir: Path, folder: Path, material: IdentityMaterial) -> Identity:
    """Afterwards the identity in `folder` is the one of the device, durably; folders of others are gone."""
    write_durably(folder / "device.crt", material.certificate, 0o644)
    write_durably(folder / "ca.crt", material.ca, 0o644)
    record = {
        "version": VERSION,
        "folder": folder.name,
        "device_id": material.device_id,
        "device_name": material.device_name,
        "agent_address": material.agent_address,
        "broker_address": material.broker_address,
        "owner": material.owner,
    }
    write_durably(state_dir / FILE_NAME, json.dumps(record, indent=2).encode() + b"\n", 0o600)
    discard_leftovers(state_dir)
    return load_identity(state_dir)


def discard_leftovers(state_dir: Path) -> None:
    """Removes folders of enrollments that were cut short, and of identities that were replaced."""
    current = ""
    if is_enrolled(state_dir):
        current = load_identity(state_dir).key_file.parent.name
    for folder in state_dir.glob(f"{FOLDER_PREFIX}*/"):
        if folder.name != current:
            shutil.rmtree(folder, ignore_errors=True)


def holder(state_dir: Path) -> int:
    """The process that holds the state folder now; 0 for none, -1 for one that is not known."""
    try:
        descriptor = os.open(state_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted(descriptor)
    finally:
        os.close(descriptor)
    return 0


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Holds the state folder for this process. Raises AlreadyRunning where another one has it."""
    descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _noted(descriptor)
            name = f"process {pid}" if pid > 0 else "of which the process is not known"
            raise AlreadyRunning(
                f"another agent uses {state_dir} ({name}); stop it, or give this one its own --state-dir"
            ) from None
        _note(descriptor)
        yield
    finally:
        os.close(descriptor)


def _note(descriptor: int) -> None:
    """Who this is. In place, since a full disk has no room for more; where it takes not even that, the note stays the
    one of who was there before, and the lock is held all the same."""
    with suppress(OSError):
        os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)


def _noted(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else -1
