"""Logs whose file before is kept beside the newest one."""

from pathlib import Path

from edge_agent.runtime.log_file import LogFile


def written(path: Path, *lines: str) -> None:
    path.write_text("".join(f"2026-01-02T03:04:05.123456+00:00 stdout F {line}\n" for line in lines))


def texts(log: LogFile) -> list[str]:
    return [line.text for line in log.read()]


def test_file_before_is_read_first(tmp_path: Path) -> None:
    written(tmp_path / "log.1", "one", "two")
    written(tmp_path / "log", "three")
    log = LogFile(tmp_path / "log")
    assert texts(log) == ["one", "two", "three"]
    assert texts(log) == []
    log.close()


def test_file_that_is_set_aside_while_it_is_opened_is_read_once(tmp_path: Path) -> None:
    written(tmp_path / "log", "one")
    (tmp_path / "log.1").hardlink_to(tmp_path / "log")
    log = LogFile(tmp_path / "log")
    assert texts(log) == ["one"]
    written(tmp_path / "fresh", "two")
    (tmp_path / "fresh").replace(tmp_path / "log")
    assert texts(log) == ["two"]
    log.close()


def test_file_that_came_and_went_between_two_looks_is_read(tmp_path: Path) -> None:
    written(tmp_path / "log", "one")
    log = LogFile(tmp_path / "log")
    log.look()
    written(tmp_path / "log.1", "two")
    written(tmp_path / "fresh", "three")
    (tmp_path / "fresh").replace(tmp_path / "log")
    assert texts(log) == ["one", "two", "three"]
    assert texts(log) == []
    log.close()


def test_spoiled_lines_are_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    spoiled = ["\0" * 20, "no time at all", "2026-01-02T99:99 stdout F bad", "0001-01-01 stdout F too old"]
    written(tmp_path / "log", "one", "two")
    first, second = (tmp_path / "log").read_text().splitlines()
    (tmp_path / "log").write_text("\n".join([first, *spoiled, second, ""]))
    log = LogFile(tmp_path / "log")
    assert texts(log) == ["one", "two"]
    log.close()
