"""A name for everything that an artifact depends on: two requests with the same name are answered with the same digest.

Not in it, since nothing of it enters the artifact: time-out, push and tags of `build`, and of `deploy` what only the
device needs. A floating base tag or an unpinned package is in it as it is written: how long an artifact made from it
is handed out again is the operator's setting.
"""

import functools
import hashlib
import json
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from controller.builds.model import TargetJob
from controller.builds.targets import TargetProfile
from controller.sealing import SecretBox
from controller.spec.runtimes import load_runtimes, runtime_file

NOT_OF_BUILD = {"timeout", "push", "tags", "image"}
# The fields of `deploy` that enter images and bundles; a test holds the builders to them.
OF_DEPLOY = {"entrypoint", "pre_exec", "network"}


def cache_key(job: TargetJob, profile: TargetProfile, box: SecretBox) -> str:
    """64 hexadecimal digits. The order of files, variables and labels does not matter."""
    document = {
        "builder": _builder_digest(),
        "kind": job.kind.value,
        "profile": profile.model_dump(mode="json"),
        "runtime": _runtime(job),
        "owner": [job.user_id, job.project_id, job.name, job.repository],
        "build": job.spec.model_dump(mode="json", exclude=NOT_OF_BUILD),
        "deploy": job.deploy.model_dump(mode="json", include=OF_DEPLOY),
        "files": sorted([file.path, file.digest, file.executable] for file in job.files),
        "secrets": {name: box.fingerprint(value) for name, value in job.secrets.items()},
    }
    return hashlib.sha256(_canonical(document)).hexdigest()


def _runtime(job: TargetJob) -> Any:
    """What the runtime adds: an operator's own one may change without notice."""
    wanted = job.spec.runtime
    kind = load_runtimes().get(wanted.kind) if wanted is not None else None
    if kind is None:
        return None
    added = {name: hashlib.sha256(runtime_file(kind.name, name)).hexdigest() for name in kind.files}
    return [kind.model_dump(mode="json"), added]


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@functools.cache
def _builder_digest() -> str:
    """Of this version and of all its templates: another version may build otherwise."""
    whole = hashlib.sha256(version("longshore").encode())
    for path, content in sorted(_files(files("templates"), "")):
        whole.update(_canonical([path, hashlib.sha256(content).hexdigest()]))
    return whole.hexdigest()


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            found += _files(entry, f"{name}/")
        elif entry.is_file():
            found.append((name, entry.read_bytes()))
    return found
