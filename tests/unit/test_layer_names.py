"""The short names under which layers are mounted are written again where they were lost."""

import shutil
from pathlib import Path

import pytest

from edge_agent.podman.storage.links import mend_names
from edge_agent.podman.storage.store import Store

CHAIN = ("top", "middle", "base")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    (tmp_path / "overlay/l").mkdir(parents=True)
    for at, layer in enumerate(CHAIN):
        made.content(layer).mkdir(parents=True)
        (tmp_path / "overlay/l" / layer.upper()).symlink_to(f"../{layer}/diff")
        (made.folder(layer) / "link").write_text(layer.upper())
        if below := CHAIN[at + 1 :]:
            (made.folder(layer) / "lower").write_text(":".join(f"l/{lower.upper()}" for lower in below))
    return made


def test_names_that_are_whole_are_left_as_they_are(store: Store) -> None:
    assert mend_names(store, CHAIN) == []


@pytest.mark.parametrize("content", ["", "\0" * 6])
def test_empty_names_are_written_again(store: Store, content: str) -> None:
    (store.folder("middle") / "link").write_text(content)
    (store.folder("top") / "lower").write_text(content)
    assert mend_names(store, CHAIN) == ["middle", "top"]
    assert (store.folder("middle") / "link").read_text() == "MIDDLE"
    assert (store.folder("top") / "lower").read_text() == "l/MIDDLE:l/BASE"
    assert not (store.folder("base") / "lower").exists()


def test_a_lacking_name_is_written_again(store: Store) -> None:
    (store.folder("middle") / "link").unlink()
    assert mend_names(store, CHAIN) == ["middle"]
    assert (store.folder("middle") / "link").read_text() == "MIDDLE"


def test_a_layer_without_a_folder_gets_none(store: Store) -> None:
    shutil.rmtree(store.folder("base"))
    assert mend_names(store, CHAIN) == []
    assert not store.folder("base").exists()


def test_a_name_that_nobody_knows_is_replaced_by_a_new_one(store: Store) -> None:
    (store.folder("middle") / "link").write_text("")
    (store.root / "overlay/l/MIDDLE").unlink()
    assert mend_names(store, CHAIN) == ["middle", "top"]
    name = (store.folder("middle") / "link").read_text()
    assert len(name) == len("MHL3W4GUYNVHSFBTJL7QDGQP7T")
    assert (store.root / "overlay/l" / name).resolve() == store.content("middle")
    assert (store.folder("top") / "lower").read_text() == f"l/{name}:l/BASE"


def test_names_that_are_gone_altogether_are_replaced(store: Store) -> None:
    for layer in CHAIN:
        (store.folder(layer) / "link").write_text("")
    shutil.rmtree(store.root / "overlay/l")
    assert mend_names(store, CHAIN) == ["top", "middle", "base", "top", "middle"]
    links = [store.root / "overlay" / name for name in (store.folder("top") / "lower").read_text().split(":")]
    assert [link.resolve() for link in links] == [store.content("middle"), store.content("base")]


def test_names_below_that_were_read_from_empty_files_are_written_again(store: Store) -> None:
    (store.folder("top") / "lower").write_text("l:")
    assert mend_names(store, CHAIN) == ["top"]
    assert (store.folder("top") / "lower").read_text() == "l/MIDDLE:l/BASE"
