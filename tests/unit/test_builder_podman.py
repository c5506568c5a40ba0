"""The builder's own Podman: what is written before it runs."""

from pathlib import Path

from controller.builds.podman import Podman


def test_settings_that_are_right_are_left_alone_and_others_are_replaced_as_a_whole(tmp_path: Path) -> None:
    podman = Podman(tmp_path / "builder")
    podman.prepare()
    conf = podman.folder / "containers.conf"
    written, inode = conf.read_bytes(), conf.stat().st_ino
    with conf.open("rb") as reader:
        podman.prepare()
        assert (conf.stat().st_ino, reader.read()) == (inode, written)
    conf.write_text("[engine]\n")
    with conf.open("rb") as reader:
        podman.prepare()
        # Who has it open meanwhile reads the old one, never half of the new one.
        assert reader.read() == b"[engine]\n"
    assert conf.read_bytes() == written
    assert [entry.name for entry in podman.folder.glob("*conf*")] == ["containers.conf"]
