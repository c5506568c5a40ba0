"""A layer is held against the archive in which it came."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.podman.storage.tar_split import Damaged, Unverifiable, verify

FILES = {"./": None, "bin": None, "bin/program": b"x" * 3000, "empty": b"", ".wh.old": b"", "bin/\u00e9": b"data"}


def archive() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return output.getvalue()


def recipe_of(content: bytes) -> list[dict[str, object]]:
    """As tar-split writes it: all but the content of files, in pieces."""
    entries: list[dict[str, object]] = []
    position = 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            piece = content[position : member.offset_data]
            entries.append({"type": 2, "payload": base64.b64encode(piece).decode(), "position": len(entries)})
            entries.append({"type": 1, "name": member.name, "size": member.size, "position": len(entries)})
            position = member.offset_data + member.size
    entries.append({"type": 2, "payload": base64.b64encode(content[position:]).decode(), "position": len(entries)})
    return entries


@pytest.fixture
def layer(tmp_path: Path) -> tuple[Path, Path, str]:
    """Recipe, folder and digest."""
    content, folder, recipe = archive(), tmp_path / "diff", tmp_path / "recipe.gz"
    (folder / "bin").mkdir(parents=True)
    for name, data in FILES.items():
        if data is not None and not name.startswith(".wh."):
            (folder / name).write_bytes(data)
    recipe.write_bytes(gzip.compress("\n".join(json.dumps(entry) for entry in recipe_of(content)).encode()))
    return recipe, folder, f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_layer_as_it_was_fetched_is_whole(layer: tuple[Path, Path, str]) -> None:
    verify(*layer)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "has 0 bytes instead of 3000": lambda folder: (folder / "bin/program").write_bytes(b""),
    "not those that were fetched": lambda folder: (folder / "bin/program").write_bytes(b"y" * 3000),
    "program is lacking": lambda folder: (folder / "bin/program").unlink(),
    "empty is lacking": lambda folder: (folder / "empty").unlink(),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_what_is_damaged_of_a_layer_is_said(layer: tuple[Path, Path, str], said: str) -> None:
    DAMAGES[said](layer[1])
    with pytest.raises(Damaged, match=said):
        verify(*layer)


def test_without_its_recipe_nobody_can_tell(layer: tuple[Path, Path, str]) -> None:
    layer[0].write_bytes(layer[0].read_bytes()[:40])
    with pytest.raises(Unverifiable):
        verify(*layer)
    layer[0].unlink()
    with pytest.raises(Unverifiable):
        verify(*layer)


def test_a_link_out_of_a_layer_is_not_followed(layer: tuple[Path, Path, str], tmp_path: Path) -> None:
    (layer[1] / "bin").rename(tmp_path / "elsewhere")
    (layer[1] / "bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unverifiable):
        verify(*layer)
