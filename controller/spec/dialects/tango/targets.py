"""For which devices a file of TANGO is: from type, architecture, system and accelerator to `targets`."""

from dataclasses import dataclass

from controller.spec.dialects.draft import Draft, Given, Section, said
from controller.spec.dialects.tango.tables import (
    ACCELERATOR_WORDS,
    ACCELERATORS,
    ARCHITECTURES,
    KUBERNETES,
    LINUX,
    MEANT,
    OTHER_SYSTEMS,
    PLAIN_TYPES,
    TARGETS,
    UNSERVED,
    VENDORS,
    plain_name,
)
from controller.spec.messages import nearest
from controller.spec.tree import scalar_value

MINIMUM = ("build", "minimum", "accelerators")


@dataclass(frozen=True)
class Wanted:
    """An accelerator as a file asks for it; `count` is 0 where it does not say how many."""

    word: str = "cpu"
    vendor: str = ""
    model: str = ""
    count: int = 0


@dataclass(frozen=True)
class Chosen:
    """The target: its profile and the kind of its accelerator, both "" where the file's own `targets` decide."""

    profile: str = ""
    accelerator: str = ""


def read_targets(draft: Draft, build: Section, deploy: Section, gpus: Given | None, *, own: bool) -> Chosen:
    """Writes `targets`, and the minimum of accelerators. `gpus`: of `deploy.resources`. `own`: the file has targets as
    version 1 does, which win."""
    kind, architecture = deploy.take("type"), build.take("architecture")
    accelerator = build.take("accelerator")
    _system(draft, build.take("os"))
    if own:
        for given in (kind, architecture, accelerator, gpus):
            if given is not None:
                draft.understood(given.at, "is left out: targets says for which devices it is")
        return Chosen()
    wanted = _wanted(draft, accelerator)
    count = _count(draft, gpus)
    if count and wanted.word == "cpu" and accelerator is not None:
        draft.refuse(accelerator.at, "says cpu, and deploy.resources.gpu asks for a GPU; make them agree")
    wanted = Wanted("gpu" if count and wanted.word == "cpu" else wanted.word, wanted.vendor, wanted.model,
                    max(count, wanted.count))  # fmt: skip
    family = _family(draft, kind, architecture)
    if not family:
        return Chosen()
    at = next((given.at for given in (kind, architecture, accelerator) if given is not None), ())
    return _choose(draft, family, wanted, at, (accelerator or gpus or Given("", at)).at, _artifact(kind))


def _artifact(kind: Given | None) -> str:
    return PLAIN_TYPES.get(plain_name(kind.text), "image") if kind else "image"


def _family(draft: Draft, kind: Given | None, architecture: Given | None) -> str:
    """The profile, or the family of them; "" where it was refused."""
    by_name = _by_type(draft, kind) if kind else ""
    by_architecture = _by_architecture(draft, architecture) if architecture else ""
    if by_name is None or by_architecture is None:
        return ""
    if by_name and kind and architecture and not _fits(by_name, by_architecture, architecture.text):
        draft.understood(
            architecture.at, f"'{architecture.text}' is left out: {kind.text} says which devices it is for"
        )
    return by_name or by_architecture or "x86"


def _fits(profile: str, family: str, written: str) -> bool:
    return plain_name(written) in KUBERNETES or (profile == "x86") == (family == "x86")


def _by_type(draft: Draft, kind: Given) -> str | None:
    """The profile that a name of a target means, "" for a type that means none; None where it is refused."""
    name = plain_name(kind.text)
    if name in UNSERVED:
        why, near = UNSERVED[name]
        draft.refuse(kind.at, f"'{kind.text}' {why}; {near}")
        return None
    if name in PLAIN_TYPES:
        if name == "compute-session":
            draft.understood(kind.at, "'compute-session' is read as a container on devices with Longshore's agent")
        return ""
    if name in TARGETS:
        if name in KUBERNETES:
            draft.understood(kind.at, f"'{kind.text}': Longshore's own agents run it on such devices, not Kubernetes")
        return TARGETS[name]
    known = sorted((*PLAIN_TYPES, *TARGETS))
    draft.refuse(
        kind.at, f"'{kind.text[:60]}' is no target that is known{nearest(name, known)}; known: {', '.join(known)}"
    )
    return None


def _by_architecture(draft: Draft, architecture: Given) -> str | None:
    name = plain_name(architecture.text)
    if name not in ARCHITECTURES:
        known = ", ".join(key for key in ARCHITECTURES if key not in KUBERNETES)
        message = f"'{architecture.text[:60]}' is not known{nearest(name, ARCHITECTURES)}; expected one of {known}"
        draft.refuse(architecture.at, message)
        return None
    if name in KUBERNETES:
        draft.understood(architecture.at, f"'{architecture.text}' is no architecture; it is left out")
    return ARCHITECTURES[name]


def _choose(draft: Draft, family: str, wanted: Wanted, at: tuple[str | int, ...], accelerator_at: tuple[str | int, ...],
            artifact: str) -> Chosen:  # fmt: skip
    profile = _profile(family, wanted.word)
    kind = ACCELERATORS.get(profile, "")
    draft.put(("targets",), [{"profile": profile, **({"artifact": artifact} if artifact != "image" else {})}], at)
    draft.understood(at, f"is for devices of the target profile {profile}{', as a bundle' * (artifact == 'bundle')}")
    if wanted.word != "cpu":
        if wanted.word not in MEANT.get(kind, ()) or (wanted.vendor and wanted.vendor not in VENDORS[kind]):
            draft.refuse(accelerator_at, _no_accelerator(profile, wanted, kind))
            return Chosen(profile, kind)
        if wanted.model:
            hint = "name such devices by labels of targets"
            draft.understood(accelerator_at, f"the model '{wanted.model[:60]}' picks no devices; {hint}")
        if wanted.count:
            draft.put((*MINIMUM, kind), wanted.count, accelerator_at)
            draft.understood(accelerator_at, f"a device needs {wanted.count} {kind}")
    return Chosen(profile, kind)


def _no_accelerator(profile: str, wanted: Wanted, kind: str) -> str:
    asked = ":".join(part for part in (wanted.word, wanted.vendor, wanted.model) if part)
    has = f"has {kind}" if kind else "has no accelerator"
    fitting = [each for each, one in ACCELERATORS.items() if wanted.word in MEANT[one] and _by_vendor(wanted, one)]
    near = f"with {wanted.word} are {', '.join(fitting)}" if fitting else "the nearest is cpu"
    return f"no target profile serves '{asked}' here: {profile} {has}; {near}"


def _by_vendor(wanted: Wanted, kind: str) -> bool:
    return not wanted.vendor or wanted.vendor in VENDORS[kind]


def _profile(family: str, word: str) -> str:
    if family == "x86":
        return "x86-cuda" if word in ("gpu", "cuda") else "x86-cpu"
    return {"arm64": "arm64-cpu", "armv7": "armv7-cpu"}.get(family, family)


def _wanted(draft: Draft, accelerator: Given | None) -> Wanted:
    if accelerator is None:
        return Wanted()
    if isinstance(accelerator.value, dict):
        return _from_map(draft, Section(draft, accelerator.value, accelerator.at))
    if isinstance(accelerator.value, list):
        draft.refuse(accelerator.at, "expected text such as gpu:nvidia, or a mapping with type, vendor, model, count")
        return Wanted()
    word, vendor, model, *more = [*accelerator.text.lower().split(":"), "", "", ""][:4]
    count = Given(more[0], accelerator.at) if more[0] else None
    return Wanted(_word(draft, Given(word, accelerator.at)), vendor.strip(), model.strip(), _count(draft, count))


def _from_map(draft: Draft, given: Section) -> Wanted:
    word, vendor, model = given.take("type"), given.take("vendor"), given.take("model")
    count, shares = given.take("count"), given.take("shares")
    if shares is not None:
        draft.understood(shares.at, "accelerators are not shared: the service gets whole ones")
    given.refuse_rest(("type", "vendor", "model", "count", "shares"))
    texts = [each.text.lower() if each else "" for each in (vendor, model)]
    return Wanted(_word(draft, word) if word else "cpu", texts[0], texts[1], _count(draft, count))


def _word(draft: Draft, given: Given) -> str:
    word = said(given.value).lower()
    if word not in ACCELERATOR_WORDS:
        known = ", ".join(ACCELERATOR_WORDS)
        draft.refuse(given.at, f"'{word[:60]}' is no accelerator{nearest(word, ACCELERATOR_WORDS)}; known: {known}")
        return "cpu"
    return word


def _count(draft: Draft, given: Given | None) -> int:
    if given is None:
        return 0
    number = scalar_value(given.text)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 64:
        draft.refuse(given.at, f"'{given.text[:60]}' is no number of accelerators; expected a whole number up to 64")
        return 0
    return number


def _system(draft: Draft, system: Given | None) -> None:
    if system is None:
        return
    name = system.text.lower()
    if name in OTHER_SYSTEMS:
        why, near = OTHER_SYSTEMS[name]
        draft.refuse(system.at, f"{why}; {near}")
    elif LINUX.fullmatch(name):
        draft.understood(system.at, f"'{system.text}' is left out: the base is that of the target profile")
    else:
        draft.refuse(system.at, f"'{system.text[:60]}' is not known; expected ubuntu, debian or linux")
