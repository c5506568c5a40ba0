"""Reads a file of TANGO into version 1. What it does not know by name stays as it is, for version 1 to judge."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from controller.spec.dialects.draft import Draft, Given, Section, is_empty
from controller.spec.dialects.tango.launching import read_entrypoint, read_pre_exec, read_runtime, read_workdir
from controller.spec.dialects.tango.packages import COMPONENTS, read_engine, read_packages
from controller.spec.dialects.tango.running import NETWORK, read_cluster, read_mounts, read_network, take_gpus
from controller.spec.dialects.tango.targets import read_targets
from controller.spec.fields import TAG
from controller.spec.image_names import split_name
from controller.spec.tree import Path

# Keys that version 1 does not have, by where they stand: any of them tells that a file is in this dialect.
KEYS: Mapping[Path, tuple[str, ...]] = {
    ("build",): (
        "architecture", "accelerator", "os", "image_uri", "target_name", "components", "engine", "deploy",
    ),
    ("deploy",): ("type", "service_name", "name", "work_dir", "workdir", "k8s", "mount"),
    ("deploy", "network"): NETWORK,
}  # fmt: skip
# What a service is called of which a file does not say it, and nobody else either.
DEFAULT_NAME = "service"
_FILES = ("nn_file", "annotation_file", "model_file")
_ALWAYS_READY = {"command": {"command": ["true"]}}


def written_in(values: Mapping[str, Any]) -> bool:
    """Whether a file that names no version is in this dialect."""
    if isinstance(values.get("deploy"), list):
        return True
    for path, names in KEYS.items():
        here: Any = values
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        if isinstance(here, dict) and any(name in here for name in names):
            return True
    return False


def read(values: Mapping[str, Any], tuples: Collection[Path], default_name: str) -> Draft:
    """The file as version 1. `tuples`: where a list was written as a tuple of Python, which means the same."""
    draft = Draft()
    draft.understood((), "the file is in an older form, that of TANGO; `longshore convert` writes it as version 1")
    for path in tuples:
        draft.understood(path, "a tuple of Python is read as a list")
    top = Section(draft, values, ())
    build = _section(draft, top, "build")
    deploy = _deploy(draft, top, build)
    optional = _section(draft, top, "optional")
    components = build.section("components")
    gpus = take_gpus(draft, deploy)
    chosen = read_targets(draft, build, deploy, gpus, own="targets" in top.rest)
    files = _named_files(draft, optional)
    engine, packages = read_engine(draft, build, components), read_packages(draft, components)
    components.refuse_rest(COMPONENTS)
    image = build.take("image_uri", "target_name")
    made = bool(engine or packages or files or image is None)
    command = read_entrypoint(draft, deploy, files.get("nn_file"))
    read_pre_exec(draft, deploy)
    served = read_runtime(draft, engine, _onnx_model(files), chosen, starts=bool(command))
    read_workdir(draft, build, deploy)
    ports = read_network(draft, deploy)
    read_mounts(draft, deploy)
    read_cluster(draft, deploy)
    _name(draft, deploy, top, _image(draft, image, made=made), default_name)
    _files(draft, build, made=made)
    _readiness(draft, deploy, known=ports or served)
    for section, at in ((optional, "optional"), (build, "build"), (deploy, "deploy")):
        if section.rest:
            draft.keep((at,), section.rest, section.at)
    for name, value in top.rest.items():
        draft.keep((name,), value, (name,))
    return draft


def _section(draft: Draft, top: Section, name: str) -> Section:
    """A part of the file; what is no mapping stays, for version 1 to refuse."""
    if isinstance(top.rest.get(name), dict):
        return Section(draft, top.rest.pop(name), (name,))
    if is_empty(top.rest.get(name)):
        top.rest.pop(name, None)
    return Section(draft, {}, (name,))


def _deploy(draft: Draft, top: Section, build: Section) -> Section:
    """The part `deploy`, which may be written as the one entry of a list, or lie inside of `build`."""
    inside, outside = build.take("deploy"), top.take("deploy")
    if inside and outside:
        draft.refuse(inside.at, "there is a deploy outside of build too; keep one of them")
    given = outside or inside
    if given and given is inside:
        draft.understood(given.at, "is read as if it stood outside of build")
    if given and isinstance(given.value, list):
        if len(given.value) != 1:
            draft.refuse(given.at, "expected one mapping, or a list of exactly one")
            return Section(draft, {}, given.at)
        draft.understood(given.at, "its one entry is read as the mapping itself")
        given = Given(given.value[0], (*given.at, 0))
    if given and not isinstance(given.value, dict):
        draft.refuse(given.at, "expected a mapping")
        return Section(draft, {}, given.at)
    return Section(draft, given.value if given else {}, given.at if given else ("deploy",))


def _named_files(draft: Draft, optional: Section) -> dict[str, Given]:
    """Writes `optional`, and answers the files that it names; of the weights the first."""
    found = {}
    for name in _FILES:
        if (given := optional.take(name)) is not None:
            draft.put(("optional", name), given.value, given.at)
            found[name] = given
    if (weights := optional.take("weight_file")) is not None and weights.entries:
        draft.add(("optional", "weight_file"), weights.entries)
        if not isinstance(weights.value, list):
            draft.understood(weights.at, "is read as a list of one")
        found["weight_file"] = weights.entries[0]
    return found


def _onnx_model(files: Mapping[str, Given]) -> Given | None:
    named = (files.get(name) for name in ("weight_file", "model_file"))
    return next((given for given in named if given is not None and given.text.lower().endswith(".onnx")), None)


def _image(draft: Draft, image: Given | None, *, made: bool) -> str:
    """Writes the image that is run as the base, and the name and tag of one that is made; answers that name."""
    if image is None:
        return ""
    if not made:
        draft.understood(image.at, f"the image {image.text} is run: there is nothing to be built into it")
        draft.put(("build", "base"), image.text, image.at)
        return _slug(split_name(image.text)[0].rpartition("/")[2])
    name, tag = split_name(image.text)
    slug = _slug(name.rpartition("/")[2])
    if slug:
        draft.put(("build", "image"), slug, image.at)
    if re.match(TAG, tag):
        draft.put(("build", "tags"), [tag], image.at)
    draft.understood(image.at, f"is read as the name {slug}{f' and tag {tag}' * bool(tag)} in Longshore's own registry")
    return slug


def _name(draft: Draft, deploy: Section, top: Section, image: str, default_name: str) -> None:
    given = deploy.take("service_name", "name")
    if given is None:
        if "name" not in top.rest:
            name = image or _slug(default_name) or DEFAULT_NAME
            draft.put(("name",), name, (*deploy.at, "service_name"))
            draft.understood(deploy.at, f"has no service_name; the service is called {name}")
        return
    slug = _slug(given.text)
    if not slug:
        draft.refuse(given.at, "has no letter or digit of which a name could be made; expected such as digits")
        return
    draft.put(("name",), slug, given.at)
    draft.understood(given.at, f"the service is called {slug}")


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def _files(draft: Draft, build: Section, *, made: bool) -> None:
    """Which files belong to the service is not said, so that all of the project's folder do."""
    if made and "files" not in build.rest:
        draft.put(("build", "files"), ["."], build.at)
        draft.understood(build.at, "all files beside this one are built in; build.files can name fewer")


def _readiness(draft: Draft, deploy: Section, *, known: bool) -> None:
    if known or "checks" in deploy.rest:
        return
    draft.put(("deploy", "checks", "readiness"), dict(_ALWAYS_READY), deploy.at)
    draft.understood(deploy.at, "has no port; it is taken for ready as soon as it runs")
