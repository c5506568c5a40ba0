"""A build context as an archive: what a builder writes to disk, the same bytes each time, in small pieces."""

import asyncio
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from controller.builds.context import ContextEntry, context_entries, write_context
from controller.builds.context_archive import PIECE, archive
from controller.builds.layers import LARGE_BYTES
from controller.builds.model import BuildFailed, ContextFile
from controller.builds.uploads import UploadStore
from controller.rendering import ImagePlan
from tests.support.building import one_chunk

PLAN = ImagePlan(
    base="base", workdir="/app", labels=(("a", "b"),), apt=("curl",), pypi=("flask",), folders=("large/00", "files"),
    runtime_files=(("serve.py", b"print()\n"),),
)  # fmt: skip
CONTENTS = {"run me.sh": b"#!/bin/sh\n", "a/" * 60 + "deep.txt": b"deep", "ä.bin": b"\1" * LARGE_BYTES, "empty": b""}


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", min_free_bytes=0)


@pytest.fixture
def files(uploads: UploadStore) -> list[ContextFile]:
    return [add(uploads, path, content, path.endswith(".sh")) for path, content in CONTENTS.items()]


def add(uploads: UploadStore, path: str, content: bytes, executable: bool = False) -> ContextFile:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    asyncio.run(uploads.write(digest, len(content), 0, one_chunk(content)))
    return ContextFile(path, digest, len(content), executable)


def test_the_archive_unpacks_to_what_a_builder_works_on(
    uploads: UploadStore, files: list[ContextFile], tmp_path: Path
) -> None:
    write_context(tmp_path / "written", PLAN, files, uploads)
    content = b"".join(archive(context_entries(PLAN, files, uploads)))
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    assert tree(tmp_path / "unpacked") == tree(tmp_path / "written")
    assert (tmp_path / "unpacked" / "packages" / "apt.txt").read_text() == "curl\n"
    assert (tmp_path / "unpacked" / "files" / "run me.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "unpacked" / "large" / "00" / "ä.bin").stat().st_size == LARGE_BYTES


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = (path.stat().st_mode, path.read_bytes())
        if folder != str(root):
            found[str(Path(folder).relative_to(root))] = (Path(folder).stat().st_mode, b"")
    return found


def test_the_same_context_is_the_same_archive_in_any_order_of_files(
    uploads: UploadStore, files: list[ContextFile]
) -> None:
    one, other = (list(archive(context_entries(PLAN, order, uploads))) for order in (files, files[::-1]))
    assert one == other
    assert max(map(len, one)) == PIECE


def test_an_archive_of_many_small_files_has_few_pieces() -> None:
    pieces = list(archive(ContextEntry(f"files/{number}", b"x") for number in range(2000)))
    assert len(pieces) == -(-(2000 * 1024 + 512 + 1024) // PIECE)


def test_a_file_that_has_gone_ends_the_archive_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(archive([ContextEntry("files/gone", tmp_path / "gone")]))


def test_an_upload_that_is_gone_is_named(uploads: UploadStore, files: list[ContextFile]) -> None:
    uploads.path(files[0].digest).unlink()
    with pytest.raises(BuildFailed, match=r"run me\.sh"):
        list(context_entries(PLAN, files, uploads))
