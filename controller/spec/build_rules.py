"""What is wrong between the parts of `build`, and between it and the kinds of artifacts that are wanted."""

import re
from collections.abc import Iterator, Mapping

from controller.spec.deploy_model import DeploySpec
from controller.spec.fields import LONGEST_TAG
from controller.spec.findings import Finding
from controller.spec.model import BuildSpec, Packages, TargetSpec, bundle_tag
from controller.spec.moments import moment
from controller.spec.tree import Path

# Labels that say what the builder did are the builder's; of the OCI's own these are free for a user to set.
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
RESERVED_PREFIXES = ("dev.longshore.", "org.opencontainers.")
FREE_LABELS = frozenset(
    f"org.opencontainers.image.{name}"
    for name in (
        "authors",
        "created",
        "description",
        "documentation",
        "licenses",
        "revision",
        "source",
        "url",
        "vendor",
        "version",
    )
)
CREATED = "org.opencontainers.image.created"
# Of secrets that a builder gives to steps itself, such as its proxy's address.
HOST_SECRETS = "longshore-"
# Tags with a meaning of their own: lists of what belongs to an artifact ("Referrers Tag Schema" of the OCI distribution
# specification 1.1), ids of builds, alone or with a target's key behind, and names of bundles.
RESERVED_TAG = re.compile(r"sha(256|384|512)-[0-9A-Fa-f]{32,}.*|b-[0-9a-f]{16}(\..*)?|.*\.bundle")
# Packages that make root of a user.
ROOT_TOOLS = frozenset(("sudo", "sudo-ldap", "doas", "opendoas"))
# What a bundle cannot hold: the field, and why.
_NOT_IN_BUNDLES: tuple[tuple[Path, str], ...] = (
    (("build", "packages", "dnf"), "a device without containers is asked for Debian packages only (packages.apt)"),
    (("build", "packages", "apk"), "a device without containers is asked for Debian packages only (packages.apt)"),
    (("build", "packages", "conda"), "a bundle holds one virtual environment; name the packages under packages.pypi"),
    (("build", "steps"), "nothing runs while a bundle is made; do it in deploy.pre_exec, or make the files beforehand"),
    (("build", "secrets"), "only steps read them, and nothing runs while a bundle is made"),
    (("build", "volumes"), "a bundle runs in the device's own file system; write to a folder of the device instead"),
)


def is_reserved(label: str) -> bool:
    """Whether a label of an image is ours to set, and not a user's."""
    return label.startswith(RESERVED_PREFIXES) and label not in FREE_LABELS


def build_findings(build: BuildSpec) -> Iterator[Finding]:
    """What is wrong in `build` alone."""
    if build.base is not None and build.distribution is not None:
        yield Finding(("build", "distribution"), "expected either base or distribution, not both")
    yield from _one_manager(build.packages)
    yield from _root_tools(build)
    for index, name in enumerate(build.secrets):
        if name.startswith(HOST_SECRETS):
            message = f"names that begin with {HOST_SECRETS} are the builder's own; take another name"
            yield Finding(("build", "secrets", index), message)
    for index, tag in enumerate(build.tags):
        if RESERVED_TAG.fullmatch(tag):
            yield Finding(("build", "tags", index), f"'{tag}' is a tag that the builder sets; take another tag")
    for label in build.labels:
        if is_reserved(label):
            free = ", ".join(sorted(FREE_LABELS))
            hint = f"; of org.opencontainers. these are free: {free}" if label.startswith("org") else ""
            yield Finding(("build", "labels", label), f"'{label}' is set by the builder; take another name{hint}")
    yield from _created(build)


def _created(build: BuildSpec) -> Iterator[Finding]:
    try:
        moment(build.labels.get(CREATED, "0"))
    except ValueError as error:
        yield Finding(("build", "labels", CREATED), str(error))


def bundle_findings(
    build: BuildSpec, deploy: DeploySpec | None, targets: Mapping[int, TargetSpec]
) -> Iterator[Finding]:
    """What is asked for and cannot be in the bundle of one of the targets."""
    where = next((index for index, target in targets.items() if target.artifact == "bundle"), None)
    if where is None:
        return
    for path, why in _NOT_IN_BUNDLES:
        value: object = build
        for part in path[1:]:
            value = getattr(value, str(part))
        if value:
            yield Finding(path, f"cannot be in a bundle, which targets[{where}] asks for: {why}")
    if build.base is not None and deploy is not None and not deploy.entrypoint:
        message = f"required for the bundle that targets[{where}] asks for, which has no base image"
        yield Finding(("deploy", "entrypoint"), message)
    yield from _long_tags(build, targets)


def _long_tags(build: BuildSpec, targets: Mapping[int, TargetSpec]) -> Iterator[Finding]:
    bundles = {index: target for index, target in targets.items() if target.artifact == "bundle"}
    where, longest = max(bundles.items(), key=lambda one: len(one[1].key))
    room = LONGEST_TAG - len(bundle_tag("", longest.key))
    for index, tag in enumerate(build.tags):
        if len(tag) > room:
            named = f"the bundle of targets[{where}] has .{longest.key} behind it"
            yield Finding(("build", "tags", index), f"longer than {room} characters, and {named}; take a shorter tag")


def _root_tools(build: BuildSpec) -> Iterator[Finding]:
    packages = build.packages
    for manager, names in (("apt", packages.apt), ("dnf", packages.dnf), ("apk", packages.apk)):
        for index, name in enumerate(names):
            if not build.allow_root and name.partition("=")[0].partition(":")[0] in ROOT_TOOLS:
                message = f"{name} makes root of the service's user; set build.allow_root: true for it"
                yield Finding(("build", "packages", manager, index), message)


def _one_manager(packages: Packages) -> Iterator[Finding]:
    used = [name for name in ("apt", "dnf", "apk") if getattr(packages, name)]
    for name in used[1:]:
        message = f"a base has one package manager, and packages.{used[0]} is given; keep the one that the base has"
        yield Finding(("build", "packages", name), message)
