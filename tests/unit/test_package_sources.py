"""The package sources of a base, before apt of the builder's machine reads them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.debian.apt import PrivateApt
from controller.builds.debian.sources import NotUnderstood, sources_in
from controller.builds.host_settings import HostSettings
from controller.builds.prepare_apt import lend
from controller.builds.prepare_base import BaseFiles

LIST = "/etc/apt/sources.list"
DEB822 = "/etc/apt/sources.list.d/debian.sources"
STATUS = "/var/lib/dpkg/status"
KEYRING = "/usr/share/keyrings/debian.pgp"
# A program of the base's layers, as the scheme of an address.
PROGRAM = "../../../../layer/diff/evil:/x"
PLAIN = "Types: deb\nURIs: http://x/\nSuites: a\n"

HARMFUL = {
    "a path for a scheme": (LIST, f"deb [trusted=yes] {PROGRAM} ./"),
    "with a form feed": (LIST, f"\fdeb [trusted=yes] {PROGRAM} ./"),
    "with a quoted type": (LIST, f'"deb" [trusted=yes] {PROGRAM} ./'),
    "with an escaped type": (LIST, f"%64eb [trusted=yes] {PROGRAM} ./"),
    "with a bracket in an option": (LIST, f'deb [trusted=yes target="]http://x"] {PROGRAM} ./'),
    "after a comment within": (DEB822, f"Types: deb\nURIs: http://x/\n# c\n {PROGRAM}\nSuites: ./\nTrusted: yes\n"),
    "on a further line": (DEB822, f"Types: deb\nURIs: http://x/\n {PROGRAM}\nSuites: ./\n"),
    "in a second paragraph": (DEB822, f"{PLAIN}\nURIs: {PROGRAM}\nTypes: deb\nSuites: b\n"),
    "a field that is given twice": (DEB822, f"URIs: http://x/\nuris: {PROGRAM}\nTypes: deb\nSuites: ./\n"),
    "a file": (LIST, "deb file:/etc ./"),
    "a copy": (LIST, "deb copy:/etc ./"),
    "a disc": (LIST, "deb cdrom:[x]/ stable main"),
    "a list of mirrors": (LIST, "deb mirror+file:/etc/passwd stable main"),
    "a host that is a path": (LIST, "deb http:/../etc stable main"),
    "a suite above": (LIST, "deb http://x/ ../../etc main"),
    "a key of the machine": (LIST, "deb [signed-by=/etc/ssl/private/key] http://x/ stable main"),
    "a key above": (LIST, "deb [signed-by=/usr/share/keyrings/../../../x] http://x/ stable main"),
    "a key that is not there": (LIST, "deb [signed-by=/usr/share/keyrings/other.gpg] http://x/ stable main"),
    "a key within": (DEB822, f"{PLAIN}Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
    "an unknown option": (LIST, "deb [inrelease-path=/x] http://x/ stable main"),
    "an unknown field": (DEB822, "Types: deb\nURIs: http://x/\nSuites: a\nInRelease-Path: /x\n"),
    "another kind": (LIST, "rpm http://x/ stable main"),
}  # fmt: skip


def lent(folder: Path, **texts: str) -> str:
    """What apt reads, of a base with these files; names are the constants above."""
    found = {globals()[name]: text.encode() for name, text in texts.items()}
    base = BaseFiles(
        {"/usr/share/keyrings/debian.gpg": ("l", "debian.pgp"), KEYRING: ("f", "")},
        {KEYRING: b"key", STATUS: b"", **found},
        {},
    )
    lend(PrivateApt(folder, "arm64", HostSettings(), {}), base)
    files = [path for path in (folder / "etc/apt").rglob("*") if path.is_file()]
    assert files == [folder / "etc/apt/sources.list"]
    return files[0].read_text()


def test_sources_on_web_servers_are_lent_with_the_keys_of_the_base(tmp_path: Path) -> None:
    one_line = """# deb file:/no x
deb http://deb.debian.org/debian bookworm main contrib  # all
deb-src [ arch=arm64,armhf signed-by=/usr/share/keyrings/debian.gpg ] https://u:p%40@a.example:8443/x/ ./
"""
    paragraphs = """# as Debian ships it: \u00e9
Types: deb
URIs: http://a/debian
# a comment
 https://b/debian
Suites: trixie trixie/updates
Components: main
Signed-By: /usr/share/keyrings/debian.pgp

Enabled: no
Types: deb
URIs: http://c/
Suites: off
"""
    key = f"{tmp_path}{KEYRING}"
    assert lent(tmp_path, LIST=one_line, DEB822=paragraphs).splitlines() == [
        "deb http://deb.debian.org/debian bookworm main contrib",
        f"deb-src [arch=arm64,armhf signed-by={key}] https://u:p%40@a.example:8443/x/ ./",
        f"deb [signed-by={key}] http://a/debian trixie main",
        f"deb [signed-by={key}] http://a/debian trixie/updates main",
        f"deb [signed-by={key}] https://b/debian trixie main",
        f"deb [signed-by={key}] https://b/debian trixie/updates main",
    ]


@pytest.mark.parametrize("case", HARMFUL)
def test_sources_that_could_reach_the_machine_are_not_lent(tmp_path: Path, case: str) -> None:
    path, text = HARMFUL[case]
    name = "LIST" if path == LIST else "DEB822"
    with pytest.raises(NotUnderstood):
        lent(tmp_path, **{name: text})
    assert not (tmp_path / "etc/apt/sources.list").exists()


PIECES = st.sampled_from(
    ["deb", " ", "\n", "\t", "[", "]", "=", "#", "http://a/", "file:/x", PROGRAM, "./", '"', "trusted=yes", "Types:",
     "URIs:", "Suites:", "\f", "\r", "\v", "\u2028", "x"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from([LIST, DEB822]))
def test_whatever_is_written_only_addresses_of_web_servers_come_out(text: str, path: str) -> None:
    try:
        found = sources_in({path: text.encode()})
    except NotUnderstood:
        return
    for source in found:
        assert re.fullmatch(
            r"(deb|deb-src)( \[[^\[\]\s\"]*( [^\[\]\s\"]*)*\])? https?://\S+ [^\s:]+( [^\s:]+)*", source.line(str)
        )
