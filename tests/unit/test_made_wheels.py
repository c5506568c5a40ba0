"""What is taken out of an image in which a wheel was made from source."""

from pathlib import Path

from controller.builds.bundles.sources import PLACE, take


def test_a_source_that_leads_its_wheels_elsewhere_brings_no_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "of_somebody-1.0-py3-none-any.whl").write_bytes(b"private")
    root = tmp_path / "root"
    (root / PLACE.lstrip("/")).parent.mkdir(parents=True)
    (root / PLACE.lstrip("/")).symlink_to(tmp_path / "private")
    take(root, tmp_path / "taken")
    assert list((tmp_path / "taken").iterdir()) == []
