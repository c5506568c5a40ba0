"""Files of a volume as layers: the same for the same files, and next to the same for nearly the same."""

import hashlib
import json
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.builds.model import ContextFile
from controller.volumes.packing import LARGE_BYTES, Packed, Stored, groups, pack_volume

PATHS = st.lists(
    st.text(alphabet="abcdef/", min_size=1, max_size=12).filter(lambda path: "//" not in path), unique=True, min_size=1
)


def packed(contents: Mapping[str, bytes], *, executable: str = "") -> Packed:
    with tempfile.TemporaryDirectory() as folder:
        stored = []
        for number, (path, content) in enumerate(contents.items()):
            location = Path(folder, f"content-{number}")
            location.write_bytes(content)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            stored.append(Stored(ContextFile(path, digest, len(content), path == executable), location))
        return pack_volume(stored, Path(folder))


def digests(result: Packed) -> set[str]:
    return {blob.digest for blob in result.blobs}


@given(paths=PATHS)
def test_every_small_file_is_in_one_group(paths: list[str]) -> None:
    assert sorted(path for group in groups(paths).values() for path in group) == sorted(paths)


@given(paths=PATHS, new=st.text(alphabet="xyz", min_size=1, max_size=5))
def test_a_new_small_file_changes_one_group(paths: list[str], new: str) -> None:
    before, after = set(groups(paths).values()), set(groups([*paths, new]).values())
    assert len(before - after) <= 1
    assert len(after - before) == 1


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=4), st.binary(max_size=50), min_size=1), st.randoms()
)
def test_the_same_files_are_the_same_version_in_any_order(contents: dict[str, bytes], shuffle: random.Random) -> None:
    other = list(contents.items())
    shuffle.shuffle(other)
    assert packed(contents).manifest == packed(dict(other)).manifest


def test_a_change_of_one_large_file_leaves_all_other_layers() -> None:
    contents = {"labels.txt": b"0\n1\n", "model.onnx": b"a" * LARGE_BYTES, "base.bin": b"b" * LARGE_BYTES}
    before, after = packed(contents), packed({**contents, "model.onnx": b"c" * LARGE_BYTES})
    assert len(digests(after) - digests(before)) == 1


def test_a_large_file_is_a_layer_as_it_is_with_its_path_and_mode() -> None:
    content = b"x" * LARGE_BYTES
    result = packed({"bin/tool": content, "readme": b"hello"}, executable="bin/tool")
    document = json.loads(result.manifest)
    (large,) = (layer for layer in document["layers"] if layer["mediaType"].endswith("volume.file.v1"))
    assert large["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert large["annotations"] == {
        "org.opencontainers.image.title": "bin/tool", "dev.longshore.executable": "true",
    }  # fmt: skip
    assert json.loads(next(blob.piece(0) for blob in result.blobs if blob.digest == document["config"]["digest"])) == {
        "schema": 1, "bytes": LARGE_BYTES + 5, "files": 2,
    }  # fmt: skip
