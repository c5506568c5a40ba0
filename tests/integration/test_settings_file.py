"""`controller.yml` is whole at any moment, however badly writing it goes."""

from pathlib import Path

import pytest

from controller.settings import FILE_NAME, Broker, Endpoint, Registry, Settings, load_settings, save_settings
from tests.support.small_disk import small_disk

HERE = Endpoint(listen="127.0.0.1:1", address="127.0.0.1:1")
BEFORE = Settings(
    public=HERE, agents=HERE, web=HERE, broker=Broker(address="127.0.0.1:1"), registry=Registry(address="a:1")
)
AFTER = BEFORE.model_copy(update={"min_free_mib": 7})


@pytest.mark.podman
def test_a_full_disk_leaves_the_settings_as_they_were(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        save_settings(disk.path, BEFORE)
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            save_settings(disk.path, AFTER)
        assert load_settings(disk.path) == BEFORE
        disk.free_again()
        save_settings(disk.path, AFTER)
        assert load_settings(disk.path) == AFTER
        assert [path.name for path in disk.path.iterdir()] == [FILE_NAME]


def test_a_link_and_the_mode_of_the_file_stay(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FILE_NAME).symlink_to(tmp_path / "real.yml")
    save_settings(tmp_path / "data", BEFORE)
    (tmp_path / "real.yml").chmod(0o600)
    save_settings(tmp_path / "data", AFTER)
    assert load_settings(tmp_path / "data") == AFTER
    assert (tmp_path / "data" / FILE_NAME).is_symlink()
    assert (tmp_path / "real.yml").stat().st_mode & 0o777 == 0o600
