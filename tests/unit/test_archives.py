"""Archives become the files that they hold, or are refused with a reason; then nothing of them stays."""

import asyncio
import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.builds.archive_limits import ArchiveLimits
from controller.builds.archive_readers import BadArchive, Meter, entries
from controller.builds.archives import expand
from controller.builds.model import ContextFile
from controller.builds.uploads import UploadStore
from controller.errors import FailedPrecondition, InvalidRequest, ResourceExhausted

FILES = {
    "server.py": b"print('ready')\n",
    "model/digits.onnx": bytes(5000),
    "model/empty": b"",
    "größe \"$(x)'.txt": b"1",
}
Change = Callable[[tarfile.TarInfo], None]


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    return info


def tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for each in members:
            if isinstance(each, tuple):
                archive.addfile(member(each[0], content=each[1]), io.BytesIO(each[1]))
            else:
                archive.addfile(each, io.BytesIO(bytes(each.size)))
    return output.getvalue()


def zipped(files: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return output.getvalue()


def plain(files: Mapping[str, bytes]) -> bytes:
    return tar(*files.items())


FORMATS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "tar": plain,
    "tar.gz": lambda files: gzip.compress(plain(files), 1),
    "tar.xz": lambda files: lzma.compress(plain(files), preset=0),
    "zip": zipped,
}


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path, min_free_bytes=0)


def put(uploads: UploadStore, content: bytes) -> str:
    """Uploads it; its digest."""

    async def one_chunk() -> AsyncIterator[bytes]:
        yield content

    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    asyncio.run(uploads.write(digest, len(content), 0, one_chunk()))
    return digest


def expanded(uploads: UploadStore, content: bytes, limits: ArchiveLimits | None = None) -> tuple[ContextFile, ...]:
    return expand(put(uploads, content), uploads, limits)


def contents(uploads: UploadStore, files: tuple[ContextFile, ...]) -> dict[str, bytes]:
    return {file.path: uploads.path(file.digest).read_bytes() for file in files}


def refusal(uploads: UploadStore, tmp_path: Path, content: bytes, limits: ArchiveLimits | None = None) -> str:
    """Why it is refused; nothing of it stays."""
    digest = put(uploads, content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest) as caught:
        expand(digest, uploads, limits)
    assert sorted(tmp_path.rglob("*")) == before
    assert caught.value.field == "archive"
    return caught.value.description


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_becomes_its_files(uploads: UploadStore, tmp_path: Path, kind: str) -> None:
    files = expanded(uploads, FORMATS[kind](FILES))
    assert contents(uploads, files) == FILES
    assert [file.path for file in files] == sorted(FILES)
    assert all(file.size_bytes == len(FILES[file.path]) for file in files)
    assert list((tmp_path / "partial").iterdir()) == []
    for file in files:
        status = uploads.path(file.digest).stat()
        assert (status.st_mtime, status.st_mode & 0o777) == (0, 0o644)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    files=st.dictionaries(
        st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=30).filter(
            lambda name: name not in (".", "..") and name[1:2] != ":"
        ),
        st.binary(max_size=2000),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_files_an_archive_holds_come_out_as_they_are(
    uploads: UploadStore, kind: str, files: dict[str, bytes]
) -> None:
    assert contents(uploads, expanded(uploads, FORMATS[kind](files))) == files


def test_modes_folders_and_the_beginnings_that_archivers_write_are_understood(uploads: UploadStore) -> None:
    folder, program = member("./bin/", tarfile.DIRTYPE), member("./bin/run", content=b"\0")
    program.mode = 0o755
    files = expanded(uploads, tar(member(".", tarfile.DIRTYPE), folder, program, ("./readme", b"x")))
    assert [(file.path, file.executable) for file in files] == [("bin/run", True), ("readme", False)]

    def executable(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o100755 << 16

    assert [file.executable for file in expanded(uploads, zipped({"run": b"x"}, executable))] == [True]


def test_the_same_archive_again_gives_the_same_and_leaves_nothing_more(uploads: UploadStore, tmp_path: Path) -> None:
    first = expanded(uploads, plain(FILES))
    before = sorted(tmp_path.rglob("*"))
    assert expanded(uploads, plain(FILES)) == first
    assert sorted(tmp_path.rglob("*")) == before


def test_links_inside_become_the_files_that_they_lead_to(uploads: UploadStore) -> None:
    links = [
        member("current", tarfile.SYMTYPE, target="versions/latest"),
        member("versions/latest", tarfile.SYMTYPE, target="../versions/./2/model"),
        member("same", tarfile.LNKTYPE, target="./versions/2/model"),
    ]
    files = expanded(uploads, tar(links[0], links[1], ("versions/2/model", b"two"), links[2]))
    assert set(contents(uploads, files).values()) == {b"two"}
    assert [file.path for file in files] == ["current", "same", "versions/2/model", "versions/latest"]

    def link(info: zipfile.ZipInfo) -> None:
        if info.filename == "link":
            info.external_attr = 0o120777 << 16

    assert contents(uploads, expanded(uploads, zipped({"a": b"1", "link": b"a"}, link)))["link"] == b"1"


OUT = [
    (("../evil", b""), "leads out"),
    (("a/../../evil", b""), "leads out"),
    (("/etc/passwd", b""), "absolute path"),
    (("C:\\evil", b""), "absolute path"),
    (("a//b", b""), "not a plain path"),
    (("a/./b", b""), "not a plain path"),
    (("a\nb", b""), "control character"),
    (("a\x1b[31m", b""), "control character"),
    (("/".join("d" * 70), b""), "deeper"),
    (("x" * 300, b""), "too long"),
    (member("dev", tarfile.CHRTYPE), "device"),
    (member("dev", tarfile.BLKTYPE), "device"),
    (member("pipe", tarfile.FIFOTYPE), "device"),
    (member("link", tarfile.SYMTYPE, target="/etc/passwd"), "out of the archive"),
    (member("link", tarfile.SYMTYPE, target="../x"), "out of the archive"),
    (member("a/link", tarfile.SYMTYPE, target="../../x"), "out of the archive"),
    (member("link", tarfile.SYMTYPE, target="nothing"), "no file of the archive"),
    (member("link", tarfile.SYMTYPE, target="link"), "no file of the archive"),
    (member("link", tarfile.SYMTYPE, target="."), "no file of the archive"),
    (member("link", tarfile.LNKTYPE, target="../../etc/passwd"), "leads out"),
    (member("link", tarfile.LNKTYPE, target="/etc/passwd"), "absolute path"),
    (member("link", tarfile.LNKTYPE, target="later"), "no file of the archive"),
]


@pytest.mark.parametrize(("entry", "why"), OUT, ids=[f"{number}-{why}" for number, (_, why) in enumerate(OUT)])
def test_what_could_reach_out_is_refused(
    uploads: UploadStore, tmp_path: Path, entry: tarfile.TarInfo | tuple[str, bytes], why: str
) -> None:
    assert why in refusal(uploads, tmp_path, tar(("first", b"1"), entry, ("last", b"2")))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a\nb", "a\0b"])
def test_names_in_a_zip_are_trusted_no_more(uploads: UploadStore, tmp_path: Path, name: str) -> None:
    content = zipped({"x" * len(name): b"1"}).replace(b"x" * len(name), name.encode())
    assert repr(name) in refusal(uploads, tmp_path, content)


def test_a_device_in_a_zip_is_refused(uploads: UploadStore, tmp_path: Path) -> None:
    def device(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o020666 << 16

    assert "device" in refusal(uploads, tmp_path, zipped({"x": b""}, device))


def test_one_path_twice_and_a_file_that_is_a_folder_are_refused(uploads: UploadStore, tmp_path: Path) -> None:
    assert "twice" in refusal(uploads, tmp_path, tar(("a", b"1"), ("./a", b"2")))
    assert "as a file" in refusal(uploads, tmp_path, tar(("a", b"1"), ("a/b", b"2")))
    assert "as a file" in refusal(uploads, tmp_path, tar(("a", b"1"), member("a", tarfile.DIRTYPE)))
    link = member("a", tarfile.SYMTYPE, target="b")
    assert "as a file" in refusal(uploads, tmp_path, tar(link, ("b", b"1"), ("a/c", b"2")))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_a_bomb_is_refused_before_it_fills_the_disk(uploads: UploadStore, tmp_path: Path, kind: str) -> None:
    limits = ArchiveLimits(freely=2**20, max_ratio=50)
    assert "50-fold" in refusal(uploads, tmp_path, FORMATS[kind]({"zeros": bytes(64 * 2**20)}), limits)


def test_too_much_and_too_many_are_refused(uploads: UploadStore, tmp_path: Path) -> None:
    noise = {f"{number}": random.Random(number).randbytes(1000) for number in range(20)}
    for kind in FORMATS.values():
        assert "more than 19 entries" in refusal(uploads, tmp_path, kind(noise), ArchiveLimits(max_files=19))
        assert "more than 15000 bytes" in refusal(uploads, tmp_path, kind(noise), ArchiveLimits(max_bytes=15_000))
    assert len(expanded(uploads, zipped(noise), ArchiveLimits(max_files=20))) == 20


def test_a_header_that_would_fill_the_memory_is_refused(uploads: UploadStore, tmp_path: Path) -> None:
    long_name = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    long_name.size = 2**30
    assert "header" in refusal(uploads, tmp_path, long_name.tobuf() + bytes(2**20))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_that_ends_too_early_or_is_damaged_is_refused(
    uploads: UploadStore, tmp_path: Path, kind: str
) -> None:
    whole = FORMATS[kind]({f"{number}": random.Random(number).randbytes(3000) for number in range(3)})
    for length in (600, len(whole) // 2, len(whole) - (10_000 if kind == "tar" else 9)):
        assert "not whole" in refusal(uploads, tmp_path, whole[:length])
    if kind != "tar":
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 0xFF
        assert "damaged" in refusal(uploads, tmp_path, bytes(damaged))


def changed(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def damaged_archives() -> Iterator[tuple[str, bytes]]:
    whole = zipped({"a.txt": b"hello"})
    directory, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    yield "needs a zip of the future", changed(whole, directory + 6, b"\xff")
    yield "is a patch of another file", changed(whole, directory + 8, b"\x20")
    yield "begins before its beginning", changed(whole, directory + 42, b"\xff\xff\xff\x7f")
    yield "has its list before its beginning", changed(whole, end + 16, b"\xff\xff\xff\x7f")
    yield "has a name that is no UTF-8", changed(changed(whole, directory + 9, b"\x08"), directory + 46, b"\xff")
    far = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**64 - 1, 1)
    yield "has its list out of reach", whole[:end] + far + changed(whole[end:], 12, b"\xff" * 4)
    latin = tar(("n\u00e9", b"1"), ("b", b"2")).replace("n\u00e9".encode(), b"n\xe9")
    yield "is a tar with a first name that is no UTF-8", with_checksum(latin)


def with_checksum(archive: bytes) -> bytes:
    """A tar, with the check sum of its first header."""
    header = changed(archive[:512], 148, b" " * 8)
    return changed(archive, 148, b"%06o\0 " % sum(header))


DAMAGED = dict(damaged_archives())


@pytest.mark.parametrize("what", DAMAGED)
def test_whatever_is_wrong_with_an_archive_is_its_senders_mistake(
    uploads: UploadStore, tmp_path: Path, what: str
) -> None:
    assert refusal(uploads, tmp_path, DAMAGED[what])


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_bytes_that_flip_in_an_archive_lead_to_a_refusal_or_to_nothing(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    whole = FORMATS[kind]({"a/b.txt": b"x" * 500, "n" * 150: b"y" * 100})
    path = tmp_path / "archive"
    content = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        content[at : at + 4] = data.draw(st.sampled_from((b"\xff" * 4, b"\0", b"")) | st.binary(min_size=1, max_size=8))
    path.write_bytes(content)
    with contextlib.suppress(BadArchive):
        for entry in entries(path, Meter(10**7, "too much"), 1000):
            while entry.read(65536):
                pass


def test_what_is_no_archive_and_what_is_not_taken_are_refused(uploads: UploadStore, tmp_path: Path) -> None:
    for content in (b"", b"hello", b"BZh91AY&SY", os.urandom(2000)):
        assert "none of tar" in refusal(uploads, tmp_path, content)

    def secret(info: zipfile.ZipInfo) -> None:
        info.flag_bits |= 1

    encrypted = bytearray(zipped({"x": b"1"}))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(uploads, tmp_path, bytes(encrypted))


def test_an_archive_that_is_not_there_has_to_be_uploaded(uploads: UploadStore) -> None:
    with pytest.raises(FailedPrecondition):
        expand("sha256:" + "0" * 64, uploads)


def test_a_full_disk_is_said_so_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = UploadStore(tmp_path, min_free_bytes=0)
    digest = put(uploads, plain(FILES))
    before = sorted(tmp_path.rglob("*"))
    for full in (UploadStore(tmp_path, min_free_bytes=2**62), uploads):
        with pytest.raises(ResourceExhausted):
            expand(digest, full)
        assert sorted(tmp_path.rglob("*")) == before

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
