"""What is noted of a builder host: which things, and when they were used last."""

import os
from pathlib import Path

from controller.builds.remote_uses import HostUses, Kind, Use, cache_ids

CONTAINERFILES = Path(__file__).parents[1] / "golden" / "containerfiles"


def test_every_package_cache_of_a_containerfile_is_found() -> None:
    for path in CONTAINERFILES.glob("*.Containerfile"):
        mounts = path.read_text().count("--mount=type=cache,")
        assert bool(cache_ids(path)) is bool(mounts), path
        assert len(cache_ids(path)) <= mounts
    tools = {name.split("-")[1] for name in cache_ids(CONTAINERFILES / "all.Containerfile")}
    assert {"apt", "uv"} <= tools


def test_things_are_told_oldest_use_first_and_what_was_not_noted_is_not_ours(tmp_path: Path) -> None:
    uses = HostUses(tmp_path)
    uses.note(Kind.IMAGE, "localhost/longshore/build/x86-cpu:b-1")
    uses.note(Kind.BASE, "0123")
    uses.used(Kind.BASE, "4567")
    uses.put_off(Use(Kind.IMAGE, "localhost/longshore/build/x86-cpu:b-1", 0.0), 2000.0)
    uses.put_off(Use(Kind.BASE, "0123", 0.0), 1000.0)
    # What a killed controller left of a note.
    (tmp_path / "bases" / ".note.x").touch()
    assert [(use.kind, use.name, use.last_used) for use in uses.all()] == [
        (Kind.BASE, "0123", 1000.0),
        (Kind.IMAGE, "localhost/longshore/build/x86-cpu:b-1", 2000.0),
    ]
    uses.used(Kind.BASE, "0123")
    assert uses.all()[1].name == "0123"
    uses.forget(uses.all()[0])
    assert [use.name for use in uses.all()] == ["0123"]


def test_a_note_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "abc").write_text("localhost/longshore/build/x86-cpu:old")
    os.utime(tmp_path / "images" / "abc", (5.0, 5.0))
    (use,) = HostUses(tmp_path).all()
    assert use == Use(Kind.IMAGE, "localhost/longshore/build/x86-cpu:old", 5.0)
