"""Environments of conda from unpacked packages, made by hand."""

import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.builds.conda.kept import Laid, keep, take
from controller.builds.conda.layout import Unusable, lay_out
from controller.builds.conda.model import Answer, Package, Problem, Wish
from controller.builds.debian.tree import Node

PLACEHOLDER = "/placeholder/of/some/length"


def unpacked(folder: Path, name: str, files: Mapping[str, Any], **record: Any) -> Package:
    """`files`: content, or the whole entry of paths.json with its content."""
    known = {"name": name, "version": "1.0", "build": "0", "build_number": 3, "subdir": "noarch", **record}
    above = folder / name
    entries = []
    for path, said in files.items():
        entry = said if isinstance(said, dict) else {"content": said}
        if (content := entry.get("content")) is not None and ".." not in path:
            (above / path).parent.mkdir(parents=True, exist_ok=True)
            (above / path).write_bytes(content)
        entries.append({"_path": path, **{key: value for key, value in entry.items() if key != "content"}})
    (above / "info").mkdir(parents=True, exist_ok=True)
    (above / "info/paths.json").write_text(json.dumps({"paths_version": 1, "paths": entries}))
    return Package(known, above)


def contents(entries: Mapping[str, Node]) -> dict[str, bytes]:
    return {path: node.read() for path, node in entries.items() if node.kind == tarfile.REGTYPE}


def test_the_environments_folder_takes_the_placeholders_place(tmp_path: Path) -> None:
    placeholder = PLACEHOLDER.encode()
    files = {
        "bin/run": {
            "content": b"#!" + placeholder + b"/bin/sh\n", "prefix_placeholder": PLACEHOLDER, "file_mode": "text",
        },
        "lib/x.so": {
            "content": b"\0" + placeholder + b"/lib:" + placeholder + b"\0after\0" + placeholder,
            "prefix_placeholder": PLACEHOLDER, "file_mode": "binary",
        },
        "share/as-it-is": placeholder,
    }  # fmt: skip
    found = contents(lay_out([unpacked(tmp_path, "a", files)], tmp_path).entries)
    assert found["/opt/conda/bin/run"] == b"#!/opt/conda/bin/sh\n"
    moved = b"/opt/conda/lib:/opt/conda".ljust(2 * len(placeholder) + 5, b"\0")
    # What is no text that ends is left as it is, as other installers do.
    assert found["/opt/conda/lib/x.so"] == b"\0" + moved + b"\0after\0" + placeholder
    assert found["/opt/conda/share/as-it-is"] == placeholder


def test_a_package_of_before_there_was_a_list_of_paths_is_understood(tmp_path: Path) -> None:
    package = unpacked(tmp_path, "old", {"bin/run": PLACEHOLDER.encode(), "share/x": b"x"})
    (package.folder / "info/paths.json").unlink()
    (package.folder / "info/files").write_text("bin/run\nshare/x\n")
    (package.folder / "info/has_prefix").write_text(f'{PLACEHOLDER} text "bin/run"\n')
    found = contents(lay_out([package], tmp_path).entries)
    assert (found["/opt/conda/bin/run"], found["/opt/conda/share/x"]) == (b"/opt/conda", b"x")


def test_the_oldest_packages_name_the_files_alone_in_which_the_folder_is_to_be_put(tmp_path: Path) -> None:
    old = b"#!/opt/anaconda1anaconda2anaconda3/bin/python"
    package = unpacked(tmp_path, "oldest", {"bin/run": old, "bin/run it": old, "share/x": old})
    (package.folder / "info/paths.json").unlink()
    (package.folder / "info/files").write_text("bin/run\nbin/run it\nshare/x\n")
    (package.folder / "info/has_prefix").write_text('bin/run\n\n"bin/run it"\n')
    found = contents(lay_out([package], tmp_path).entries)
    assert found["/opt/conda/bin/run"] == found["/opt/conda/bin/run it"] == b"#!/opt/conda/bin/python"
    assert found["/opt/conda/share/x"] == old


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("paths.json", b'{"paths": [{"path_type": "hardlink"}]}'),
        ("paths.json", b'{"paths": ["bin/run"]}'),
        ("paths.json", b'{"paths": 7}'),
        ("paths.json", b"\xff\xfe"),
        ("link.json", b'{"noarch": "python"}'),
        ("link.json", b'{"noarch": {"entry_points": [7]}}'),
    ],
)
def test_a_package_that_describes_itself_by_nonsense_is_refused(tmp_path: Path, name: str, said: bytes) -> None:
    python = unpacked(tmp_path, "python", {}, version="3.12.1")
    package = unpacked(tmp_path, "odd", {}, noarch="python")
    (package.folder / "info" / name).write_bytes(said)
    with pytest.raises(Unusable, match=r"odd-1\.0-0"):
        lay_out([python, package], tmp_path)


def test_what_is_noted_of_a_package_names_nothing_of_this_machine(tmp_path: Path) -> None:
    package = unpacked(tmp_path, "a", {"share/x": b"x", "bin/.a-post-link.sh": b"true"})
    environment = lay_out([package], tmp_path)
    record = contents(environment.entries)["/opt/conda/conda-meta/a-1.0-0.json"]
    assert json.loads(record)["files"] == ["share/x", "bin/.a-post-link.sh"]
    assert str(tmp_path).encode() not in record
    assert environment.scripts == ("a 1.0 3",)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//x", "./x", "a\0x"])
def test_a_path_that_leads_out_of_the_environment_is_refused(tmp_path: Path, path: str) -> None:
    package = unpacked(tmp_path, "evil", {path: {}})
    with pytest.raises(Unusable, match=r"evil-1\.0-0"):
        lay_out([package], tmp_path)


@pytest.mark.parametrize("path", ["secret", "folder/passwd", "info/paths.json"])
def test_no_file_of_this_machine_is_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/passwd").write_text('{"paths": []}')
    package = unpacked(tmp_path, "evil", {path: {"prefix_placeholder": "x", "file_mode": "text"}})
    for link, target in (("secret", "machine/passwd"), ("folder", "machine"), ("info/paths.json", "machine/passwd")):
        if path == link or path.startswith(f"{link}/"):
            (package.folder / link).unlink(missing_ok=True)
            (package.folder / link).symlink_to(tmp_path / target)
    if path == "secret":
        # The image has the link, whatever it leads to there.
        node = lay_out([package], tmp_path).entries["/opt/conda/secret"]
        assert (node.kind, node.link, node.size) == (tarfile.SYMTYPE, str(tmp_path / "machine/passwd"), 0)
        return
    with pytest.raises(Unusable, match=r"evil-1\.0-0"):
        lay_out([package], tmp_path)


@pytest.mark.parametrize(
    ("record", "links"),
    [
        ({"build": "../../x"}, {}),
        ({"version": "1.0/../x"}, {}),
        ({"noarch": "python"}, {"entry_points": ["../x = a:b"]}),
        ({"noarch": "python"}, {"entry_points": ["x = a:b; import os"]}),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, record: dict[str, Any], links: dict[str, Any]) -> None:
    python = unpacked(tmp_path, "python", {}, version="3.12.1")
    package = unpacked(tmp_path, "evil", {}, **record)
    (package.folder / "info/link.json").write_text(json.dumps({"noarch": links}))
    with pytest.raises(Unusable, match="evil"):
        lay_out([python, package], tmp_path)


def test_modules_go_where_the_python_of_the_environment_looks(tmp_path: Path) -> None:
    package = unpacked(tmp_path, "wise", {"site-packages/wise.py": b"", "python-scripts/run": b""}, noarch="python")
    free = {"version": "3.13.1", "python_site_packages_path": "lib/python3.13t/site-packages"}
    found = lay_out([unpacked(tmp_path, "python", {}, **free), package], tmp_path)
    assert found.modules == ("/opt/conda/lib/python3.13t/site-packages/wise.py",)
    assert "/opt/conda/bin/run" in found.entries
    with pytest.raises(Unusable, match="no folder for modules"):
        lay_out([unpacked(tmp_path, "python", {}, **{**free, "python_site_packages_path": "../../x"})], tmp_path)
    with pytest.raises(Unusable, match="nothing needs a Python"):
        lay_out([package], tmp_path)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    one, other = unpacked(tmp_path, "one", {"share": b"x"}), unpacked(tmp_path, "other", {"share/a/x": b"x"})
    with pytest.raises(Unusable, match="a file of another package"):
        lay_out([one, other], tmp_path)


def test_what_was_laid_out_is_taken_again(tmp_path: Path) -> None:
    (tmp_path / "made.tar").write_bytes(b"an archive")
    laid = Laid(("a 1.0 3",), ("a note",))
    assert take(tmp_path / "kept", "key", tmp_path / "taken.tar") is None
    for _ in range(2):
        keep(tmp_path / "kept", "key", tmp_path / "made.tar", laid)
    assert take(tmp_path / "kept", "key", tmp_path / "taken.tar") == laid
    assert (tmp_path / "taken.tar").read_bytes() == b"an archive"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["key.json", "key.tar"]


@pytest.mark.parametrize("spoilt", [b"", b"\0" * 40, b'{"scripts": []}', b"[]"])
def test_what_a_power_cut_spoilt_is_laid_out_anew(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / "made.tar").write_bytes(b"an archive")
    keep(tmp_path / "kept", "key", tmp_path / "made.tar", Laid())
    (tmp_path / "kept/key.json").write_bytes(spoilt)
    assert take(tmp_path / "kept", "key", tmp_path / "taken.tar") is None
    assert not (tmp_path / "taken.tar").exists()


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, done, sync, replace = tmp_path / "made.tar", [], os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        sync(descriptor)
        done.append(("synced", os.fstat(descriptor).st_ino))

    def named(self: Path, target: Path) -> Path:
        done.append((target.name, self.stat().st_ino))
        return replace(self, target)

    made.write_bytes(b"an archive")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", named)
    keep(tmp_path / "kept", "key", made, Laid())
    archive, folder = made.stat().st_ino, (tmp_path / "kept").stat().st_ino
    assert done.index(("synced", archive)) < done.index(("key.tar", archive))
    (written,) = [inode for name, inode in done if name == "key.json"]
    assert done.index(("synced", written)) < done.index(("key.json", written)) < done.index(("key.tar", archive))
    assert done[-1] == ("synced", folder)


def test_wishes_and_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    wish = Wish(("numpy >=2",), ("conda-forge",), "linux-64", (("__glibc", "2.36", "0"),), "/cache", "/scratch")
    wish.write(tmp_path / "wish")
    assert Wish.read(tmp_path / "wish") == wish
    for answer in (Answer((Package({"name": "a"}, Path("/a")),)), Answer((), Problem.MISSING, "a")):
        answer.write(tmp_path / "answer")
        assert Answer.read(tmp_path / "answer") == answer
