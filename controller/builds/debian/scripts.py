"""Whether a package's maintainer scripts do anything that an image needs and that is not done from outside.

Scripts are read, never run. What is not recognised matters. deb-preinst(5), debhelper(7)
"""

import re

from controller.builds.debian.alternatives import INSTALL
from controller.builds.debian.archive import Package

SECTION = re.compile(r"# Automatically added by (dh_\w+)[^\n]*\n.*?# End automatically added section\n?", re.DOTALL)
# Snippets that byte-compile, register with an init system or a menu, or clean up after versions of long ago.
NEEDLESS = {
    "dh_python3", "dh_installmenu", "dh_makeshlibs", "dh_installdeb", "dh_installsystemd", "dh_installinit",
    "dh_installtmpfiles", "dh_systemd_enable", "dh_systemd_start", "dh_installdebconf", "dh_pysupport",
}  # fmt: skip
# The frame of a script, with nothing in it.
FRAME = re.compile(
    r"""(\#.*|set\ -e[ux]*|exit\ [01]|:|true|fi|else|esac|;;|ldconfig
    |case\ "?\$\{?1\}?"?\ in
    |\(?["*a-z|\s-]+\)\s*(:|true|exit\ 0)?\s*(;;)?
    |if\ \[\ [^`;(]*\]\s*;\s*then
    |echo\ .*>&2)?""",
    re.VERBOSE,
)


def matters_before(package: Package) -> bool:
    """Whether something has to run before the files are unpacked."""
    return not _is_needless(package.text("preinst"))


def matters_after(package: Package) -> bool:
    """Whether something has to run when the files are there."""
    return not _is_needless(package.text("postinst"))


def _is_needless(script: str) -> bool:
    rest = SECTION.sub(lambda found: "" if found[1] in NEEDLESS else found[0], script)
    rest = INSTALL.sub(_plain, rest.replace("\\\n", " "))
    return all(FRAME.fullmatch(line.strip()) for line in rest.splitlines())


def _plain(found: re.Match[str]) -> str:
    """Alternatives in plain words are installed from outside."""
    return found[0] if "$" in found[0] else ""
