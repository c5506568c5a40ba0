"""What the maintainer scripts of a minimal Debian do when it is installed, done from outside, from the packages' files.

Left out is what an image has no use for: links for init systems and timers, the times of accounts, byte code.
docs/design/foreign-builds.md compares the trees.
"""

from collections.abc import Sequence

from controller.builds.debian import alternatives, certificates, libraries
from controller.builds.debian.archive import Package
from controller.builds.debian.tree import Tree

FOLDERS = (
    "/etc/opt", "/media", "/mnt", "/opt", "/srv", "/usr/local", "/usr/local/bin", "/usr/local/etc", "/usr/local/games",
    "/usr/local/include", "/usr/local/lib", "/usr/local/sbin", "/usr/local/share", "/usr/local/share/man",
    "/usr/local/src", "/var/opt",
)  # fmt: skip
LINKS = {
    "/usr/local/man": "share/man", "/var/lock": "/run/lock", "/var/run": "/run", "/var/spool/mail": "../mail",
    "/etc/dpkg/origins/default": "debian",
}  # fmt: skip
# Files that begin as a copy of what a package ships, and then belong to the system.
COPIES = {
    "/etc/profile": "/usr/share/base-files/profile",
    "/etc/motd": "/usr/share/base-files/motd",
    "/root/.bashrc": "/usr/share/base-files/dot.bashrc",
    "/root/.profile": "/usr/share/base-files/dot.profile",
    "/etc/nsswitch.conf": "/usr/share/libc-bin/nsswitch.conf",
    "/etc/inputrc": "/usr/share/readline/inputrc",
}
EMPTY = {"/etc/environment": 0o644, "/etc/subuid": 0o644, "/etc/subgid": 0o644, "/etc/security/opasswd": 0o600}
# Records of logins, which belong to the group utmp.
LOGIN_RECORDS = {"/var/log/btmp": 0o660, "/var/log/lastlog": 0o664, "/var/log/wtmp": 0o664}
MAIL, SHADOW, UTMP = 8, 42, 43
# The account under which apt downloads.
APT_USER = "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin"
# PAM's stacks with nothing but Unix accounts in them: kind to what stands for its placeholder.
PAM = {
    "auth": ("auth\t[success=1 default=ignore]\tpam_unix.so nullok", ""),
    "account": ("account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so ", ""),
    "password": ("password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt", ""),
    "session": ("session\t[default=1]\t\t\tpam_permit.so", "session\trequired\tpam_unix.so "),
    "session-noninteractive": ("session\t[default=1]\t\t\tpam_permit.so", "session\trequired\tpam_unix.so "),
}
PYTHON_CONFIG = "[DEFAULT]\n# how to byte-compile (comma separated: standard, optimize)\nbyte-compile = standard\n"
DIVERSIONS = "/bin/sh\n/bin/sh.distrib\ndash\n"


def configure(tree: Tree, packages: Sequence[Package], architecture: str) -> None:
    """Afterwards the tree is as if its packages' scripts had run, in all that matters to an image."""
    _folders(tree)
    for target, source in COPIES.items():
        if source in tree and target not in tree:
            tree.write(target, tree.read(source), tree.node(source).mode)
    for path, mode in EMPTY.items():
        tree.write(path, b"", mode)
    _accounts(tree)
    _shells(tree)
    _pam(tree)
    _certificates(tree)
    _python(tree)
    libraries.write_cache(tree, architecture)
    alternatives.install(tree, (choice for one in packages for choice in alternatives.choices_in(one.text("postinst"))))


def _folders(tree: Tree) -> None:
    for path in FOLDERS:
        tree.folder(path)
    tree.folder("/run/lock", 0o1777)
    tree.folder("/var/mail", 0o2775, gid=MAIL)
    for path, target in LINKS.items():
        tree.symlink(path, target)


def _accounts(tree: Tree) -> None:
    users = _master(tree, "passwd").replace(":*:", ":x:").splitlines()
    if APT_USER not in users:
        users.append(APT_USER)
    groups = _master(tree, "group").replace(":*:", ":x:").splitlines()
    tree.write("/etc/passwd", "".join(f"{line}\n" for line in users))
    tree.write("/etc/group", "".join(f"{line}\n" for line in groups))
    passwords = {name: "!" if name == "_apt" else "*" for name in (line.partition(":")[0] for line in users)}
    # No day of the last change: it would be another one in every image.
    tree.write(
        "/etc/shadow", "".join(f"{name}:{word}::0:99999:7:::\n" for name, word in passwords.items()), 0o640, SHADOW
    )
    named = (line.partition(":")[0] for line in groups)
    tree.write("/etc/gshadow", "".join(f"{name}:*::\n" for name in named), 0o640, SHADOW)
    for path, mode in LOGIN_RECORDS.items():
        tree.write(path, b"", mode, UTMP)


def _master(tree: Tree, name: str) -> str:
    path = f"/usr/share/base-passwd/{name}.master"
    return tree.read(path).decode()


def _shells(tree: Tree) -> None:
    shipped = [tree.read(path).decode() for path in tree.below("/usr/share/debianutils/shells.d")]
    shells = [line for text in shipped for line in text.splitlines() if line.startswith("/")]
    both = [name for shell in ("/bin/sh", *shells) for name in (shell, f"/usr{shell}")]
    unique = list(dict.fromkeys(both))
    tree.write("/etc/shells", "".join(f"{line}\n" for line in ("# /etc/shells: valid login shells", *unique)))
    tree.write("/var/lib/shells.state", "".join(f"{line}\n" for line in unique))


def _pam(tree: Tree) -> None:
    for kind, (primary, additional) in PAM.items():
        source = f"/usr/share/pam/common-{kind}"
        if source not in tree:
            continue
        name = "session_nonint" if kind == "session-noninteractive" else kind
        text = tree.read(source).decode().replace(f"${name}_primary", primary)
        place = f"${name}_additional"
        tree.write(f"/etc/pam.d/common-{kind}", text.replace(place if additional else f"{place}\n", additional))


def _certificates(tree: Tree) -> None:
    shipped = {path: tree.read(path) for path in tree.below(certificates.SHARED) if path.endswith(".crt")}
    if not shipped:
        return
    bundle, links = certificates.trusted_folder(shipped)
    tree.write("/etc/ssl/certs/ca-certificates.crt", bundle)
    for name, target in links.items():
        tree.symlink(f"/etc/ssl/certs/{name}", target)
    names = "".join(f"{path.removeprefix(certificates.SHARED + '/')}\n" for path in sorted(shipped))
    tree.write("/etc/ca-certificates.conf", f"# Certificates of {certificates.SHARED} that are trusted.\n{names}")
    tree.folder("/usr/local/share/ca-certificates")


def _python(tree: Tree) -> None:
    if "/usr/bin/python3" not in tree:
        return
    version = tree.node("/usr/bin/python3").link
    tree.write("/etc/python3/debian_config", PYTHON_CONFIG)
    tree.write(f"/var/lib/python/{version}_installed", b"")
    tree.folder(f"/usr/local/lib/{version}/dist-packages")
