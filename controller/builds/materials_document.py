"""A bill of materials as CycloneDX 1.6 in JSON: https://cyclonedx.org/docs/1.6/json/

Written here and not by the project's own library, whose time grows with the square of the count of packages: 18 s for
ten thousand. Tests hold it against the official schema. The same contents give the same bytes: neither time nor chance
is in it.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any

from controller.builds.materials_reading import Package
from controller.builds.model import ArtifactKind, ContextFile, TargetJob

MEDIA_TYPE = "application/vnd.cyclonedx+json"
SERIALS = uuid.UUID("5f0c1b0e-8a57-4d0e-9a5e-6c2f0f6a1d11")

MAKER = {"type": "application", "name": "longshore"}
FILE = "file"


def document(job: TargetJob, packages: Sequence[Package], files: Sequence[ContextFile]) -> bytes:
    """The bill of one artifact: its packages, and the user's own files by their digests."""
    components = [*map(_package, _each_once(packages)), *map(_file, sorted(files, key=lambda file: file.path))]
    return _complete(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": _subject(job),
                "tools": {"components": [{"type": "application", "name": "longshore"}]},
            },
        },
        components,
    )


def packages_only(materials: bytes) -> bytes:
    """The bill without the user's own files: the same for all artifacts that differ in these only."""
    body: dict[str, Any] = json.loads(materials)
    del body["serialNumber"]
    return _complete(body, [part for part in body["components"] if part["type"] != FILE])


def _complete(body: dict[str, Any], components: list[dict[str, Any]]) -> bytes:
    """With what follows from the components."""
    needed = [{"ref": "artifact", "dependsOn": sorted(part["bom-ref"] for part in components)}]
    filled = {**body, "components": components, "dependencies": needed}
    content = hashlib.sha256(_json(filled)).hexdigest()
    return _json({**filled, "serialNumber": f"urn:uuid:{uuid.uuid5(SERIALS, content)}"})


def _subject(job: TargetJob) -> dict[str, Any]:
    properties = {"user": job.user_id, "project": job.project_id, "profile": job.profile}
    return {
        "type": "container" if job.kind is ArtifactKind.IMAGE else "application",
        "bom-ref": "artifact",
        "name": job.name,
        "properties": [{"name": f"dev.longshore.{key}", "value": value} for key, value in sorted(properties.items())],
    }


def _package(package: Package) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.expression:
        described["licenses"] = [{"expression": package.expression}]
    elif package.license:
        described["licenses"] = [{"license": {"name": package.license}}]
    if package.sha256:
        described["hashes"] = [{"alg": "SHA-256", "content": package.sha256}]
    return described


def _file(file: ContextFile) -> dict[str, Any]:
    return {
        "type": FILE,
        "bom-ref": f"file:{file.path}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.digest.removeprefix("sha256:")}],
    }


def _each_once(packages: Sequence[Package]) -> list[Package]:
    """One of each name and version: two environments of an image may hold the same package."""
    return sorted({package.purl: package for package in sorted(packages, reverse=True)}.values())


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
