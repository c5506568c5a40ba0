"""Builds and what they can be made of, as cells and commands; the time is an argument."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from controller.cli import words
from controller.cli.output import Sheet
from longshore.v1 import build_pb2, types_pb2

# Digests are told apart by far fewer digits than they have.
_SHORT_DIGEST = len("sha256:") + 12
# Of a cell that may hold very much, in a table that is not wide.
_LONGEST_CELL = 40


def by_hand(context: Path) -> str:
    """Commands that make of a fetched context the image that the builder makes of it: on the base by its id, since
    the name would go into the history."""
    containerfile = (context / "Containerfile").read_text(encoding="utf-8")
    base = next(line.split()[1] for line in containerfile.splitlines() if line.startswith("FROM "))
    named = f"$(podman image inspect --format '{{{{.Id}}}}' {base})"
    options = "--layers --timestamp 0 --network host"
    return f'podman pull {base}\npodman build --from "{named}" {options} {shlex.quote(str(context))}'


def target_name(target: build_pb2.BuildTarget) -> str:
    """How the person calls the target."""
    return target.key or target.profile


def target_state(target: build_pb2.BuildTarget) -> str:
    """The state, with the place in the queue where it waits."""
    name = words.build_state(target.state)
    waits = target.state == build_pb2.BUILD_STATE_QUEUED and target.queue_position
    return f"{name} (number {target.queue_position})" if waits else name


def took(target: build_pb2.BuildTarget, now: datetime) -> str:
    """How long it has been built, or was; "" before it begins."""
    if not target.started.seconds:
        return ""
    end = target.ended.ToDatetime(UTC) if target.ended.seconds else now
    return duration((end - target.started.ToDatetime(UTC)).total_seconds())


def duration(seconds: float) -> str:
    """Whole seconds up to two minutes, then minutes: "95 s", "12m05s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 120 else f"{whole // 60}m{whole % 60:02d}s"


def kind(value: types_pb2.ArtifactKind.ValueType) -> str:
    return types_pb2.ArtifactKind.Name(value).removeprefix("ARTIFACT_KIND_").lower()


def artifact(entry: types_pb2.Artifact) -> str:
    """The name that a registry knows it by for ever; "-" where there is none."""
    return f"{entry.repository}@{entry.digest}" if entry.digest else "-"


def builds(entries: Sequence[build_pb2.Build], now: datetime, *, owner: bool = False, wide: bool = False) -> Sheet:
    columns = ("ID", "NAME", "STATE", "TARGETS", "CREATED", *(("TOOK", "ARTIFACTS") if wide else ()), "MESSAGE")
    rows = tuple(
        (
            entry.id,
            entry.name,
            _build_state(entry),
            " ".join(f"{target_name(target)}:{words.build_state(target.state)}" for target in entry.targets) or "-",
            words.age(entry.created, now),
            *(_wide_build(entry, now) if wide else ()),
            words.said(entry.reason, entry.message),
        )
        for entry in entries
    )
    return words.owned(columns, rows, [entry.project for entry in entries] if owner else None)


def _build_state(entry: build_pb2.Build) -> str:
    ended = entry.ended.seconds > 0
    return f"{words.build_state(entry.state)}{' (cancelling)' if entry.cancel_requested and not ended else ''}"


def _wide_build(entry: build_pb2.Build, now: datetime) -> tuple[str, str]:
    end = entry.ended.ToDatetime(UTC) if entry.ended.seconds else now
    lasted = duration((end - entry.created.ToDatetime(UTC)).total_seconds()) if entry.created.seconds else "-"
    made = [*(target.artifact for target in entry.targets), entry.image_index]
    return lasted, " ".join(artifact(one) for one in made if one.digest) or "-"


def targets(entries: Sequence[build_pb2.BuildTarget], now: datetime, *, wide: bool = False) -> Sheet:
    """The targets of one build."""
    more = ("PLATFORM", "HOST", "ARTIFACT") if wide else ()
    rows = tuple(
        (
            target_name(entry),
            target_state(entry),
            took(entry, now) or "-",
            *((entry.platform, entry.host or "-", artifact(entry.artifact)) if wide else ()),
            words.said(entry.reason, entry.message) or (f"as build {entry.cached_from}" if entry.cached_from else ""),
        )
        for entry in entries
    )
    return Sheet(("TARGET", "STATE", "TOOK", *more, "MESSAGE"), rows)


def images(entries: Sequence[build_pb2.BuiltImage], now: datetime, *, owner: bool = False, wide: bool = False) -> Sheet:
    columns = ("NAME", "TARGET", "KIND", "SIZE", "CREATED", "IN USE", "BUILD", "TAGS", "ARTIFACT")
    rows = tuple(
        (
            entry.name,
            entry.target or "all",
            kind(entry.artifact.kind) if entry.target else "index",
            words.size(entry.artifact.size_bytes) if entry.artifact.size_bytes else "-",
            words.age(entry.created, now),
            "yes" if entry.in_use else "no",
            entry.build_id,
            ",".join(entry.tags) or "-",
            artifact(entry.artifact) if wide else entry.artifact.digest[:_SHORT_DIGEST],
        )
        for entry in entries
    )
    return words.owned(columns, rows, [entry.project for entry in entries] if owner else None)


def profiles(entries: Sequence[build_pb2.TargetProfile], *, wide: bool = False) -> Sheet:
    more = ("ARTIFACTS", "BASE", "DISTRIBUTIONS", "NOTES") if wide else ()
    rows = tuple(
        (
            entry.name,
            entry.platform,
            entry.accelerator or "-",
            ",".join(entry.engines) or "-",
            *(
                (
                    ",".join(map(kind, entry.artifacts)) or "-",
                    entry.base,
                    _keys(entry.bases),
                    words.said("", entry.notes),
                )
                if wide
                else ()
            ),
            words.said("", entry.description),
        )
        for entry in entries
    )
    return Sheet(("NAME", "PLATFORM", "ACCELERATOR", "RUNTIMES", *more, "DESCRIPTION"), rows)


def runtimes(entries: Sequence[build_pb2.Runtime], *, wide: bool = False) -> Sheet:
    more = ("NOTES",) if wide else ()
    rows = tuple(
        (
            entry.kind,
            "yes" if entry.serves_models else "no",
            ",".join(entry.profiles) or "-",
            *((words.said("", entry.notes),) if wide else ()),
            words.said("", entry.description),
        )
        for entry in entries
    )
    return Sheet(("KIND", "SERVES MODELS", "TARGETS", *more, "DESCRIPTION"), rows)


def form(entries: Sequence[build_pb2.FormField], *, wide: bool = False) -> Sheet:
    more = ("PATTERN", "EXAMPLE") if wide else ()
    cut = str if wide else _shortened
    rows = tuple(
        (
            entry.path,
            " or ".join(dict.fromkeys([entry.type, *(other.type for other in entry.alternatives)]))
            + (" (required)" if entry.required else ""),
            cut(entry.default_json or "-"),
            cut(_allowed(entry)),
            *((entry.pattern or "-", words.said("", entry.example) or "-") if wide else ()),
            words.said("", entry.help),
        )
        for entry in entries
    )
    return Sheet(("FIELD", "TYPE", "DEFAULT", "ALLOWED", *more, "HELP"), rows)


def _allowed(entry: build_pb2.FormField) -> str:
    """What values of each kind may be."""
    told = [_allowed_of(entry), *map(_allowed_of, entry.alternatives)]
    return " or ".join(text for text in told if text != "-") or "-"


def _allowed_of(entry: build_pb2.FormField | build_pb2.FormAlternative) -> str:
    """The choices, or the bounds; a pattern is for programs."""
    if entry.choices:
        return "|".join(entry.choices)
    low = _bound(entry.minimum, entry.type) if entry.HasField("minimum") else ""
    high = _bound(entry.maximum, entry.type) if entry.HasField("maximum") else ""
    return f"{low}..{high}" if low or high else "-"


def _bound(value: float, kind: str) -> str:
    if kind == "size":
        return words.size(int(value))
    return str(int(value)) if value.is_integer() else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def hosts(entries: Sequence[build_pb2.BuilderHost], now: datetime) -> Sheet:
    rows = tuple(
        (
            entry.name,
            entry.address,
            f"{entry.running}/{entry.slots}",
            ",".join(entry.native_platforms) or "-",
            ",".join(entry.emulated_platforms) or "-",
            words.age(entry.last_seen, now),
            words.said("", entry.condition) or "able",
        )
        for entry in entries
    )
    return Sheet(("NAME", "ADDRESS", "RUNNING", "NATIVE", "EMULATED", "LAST SEEN", "CONDITION"), rows)


def _keys(pairs: Mapping[str, str]) -> str:
    return ",".join(sorted(pairs)) or "-"
