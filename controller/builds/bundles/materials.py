"""The bill of materials of a bundle, by its lock and by what its wheels say of themselves."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace

from packageurl import PackageURL

from controller.builds.archive_readers import BadArchive, damage
from controller.builds.bundles.lock import LockedWheel
from controller.builds.bundles.wheels import WheelStore
from controller.builds.materials_document import document
from controller.builds.materials_reading import MAX_FILE, Package, python_package
from controller.builds.model import TargetJob


def bundle_materials(job: TargetJob, wheels: Sequence[LockedWheel], store: WheelStore) -> bytes:
    """The document, in JSON. Blocks."""
    return document(job, [_package(wheel, store) for wheel in wheels], job.files)


def _package(wheel: LockedWheel, store: WheelStore) -> Package:
    purl = PackageURL("pypi", None, wheel.name, wheel.version).to_string()
    named = Package(purl, wheel.name, wheel.version)
    described = next(iter(_described(wheel, store)), named)
    return replace(described, purl=purl, name=wheel.name, version=wheel.version, sha256=wheel.sha256)


def _described(wheel: LockedWheel, store: WheelStore) -> Iterable[Package]:
    """https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""
    try:
        with damage(), zipfile.ZipFile(store.path(wheel)) as archive:
            for entry in archive.infolist():
                folder, _, name = entry.filename.partition("/")
                if folder.endswith(".dist-info") and name == "METADATA" and entry.file_size <= MAX_FILE:
                    return list(python_package(archive.read(entry).decode("utf-8", "replace")))
    except BadArchive:
        # uv will say so on installing; the bill names the package all the same.
        pass
    return []
