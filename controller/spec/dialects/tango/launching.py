"""What a file of TANGO starts: entrypoint, the commands before it, and the runtime that its engine is."""

import shlex

from controller.spec.dialects.draft import Draft, Given, Section, said
from controller.spec.dialects.tango.packages import PYPI, package_name
from controller.spec.dialects.tango.targets import Chosen

ENTRYPOINT = ("deploy", "entrypoint")
SHELLS = frozenset(("sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/bash"))


def read_entrypoint(draft: Draft, deploy: Section, program: Given | None) -> list[object]:
    """Writes `deploy.entrypoint`, and answers it. `program`: what `optional.nn_file` names, which runs where nothing
    else is said."""
    given = deploy.take("entrypoint")
    words = _words(draft, given) if given else []
    if given and words and said(words[0]) in SHELLS and [said(word) for word in words[1:]] == ["-c"]:
        draft.understood(given.at, "names a shell without a command for it; it is left out")
        words = []
    if not words and program is not None and program.text.endswith(".py"):
        draft.understood(program.at, f"{program.text} is what runs: there is no other entrypoint")
        given, words = program, [program.text]
    if not words or given is None:
        return []
    command = _command(words)
    if command != given.value:
        draft.understood(given.at, f"is read as the command {_shown(command)}")
    draft.put(ENTRYPOINT, command, given.at)
    return command


def read_pre_exec(draft: Draft, deploy: Section) -> None:
    """Writes `deploy.pre_exec`: a list of commands, each a list, from one or the other."""
    given = deploy.take("pre_exec")
    if given is None:
        return
    commands = [_command(words) for words in _commands(draft, given)]
    if commands and commands != given.value:
        shown = " && ".join(map(_shown, commands))
        draft.understood(given.at, f"runs before the entrypoint of each start: {shown}")
    if commands:
        draft.put(("deploy", "pre_exec"), commands, given.at)


def read_workdir(draft: Draft, build: Section, deploy: Section) -> None:
    """Writes `build.workdir`."""
    found = [given for given in (deploy.take("work_dir", "workdir"), build.take("workdir")) if given is not None]
    for other in found[1:]:
        if other.value != found[0].value:
            draft.refuse(other.at, "deploy says something else; keep one of them")
    if not found:
        return
    given, text = found[0], found[0].text
    if text in (".", "./"):
        draft.understood(given.at, "'.' is left out: it is /app")
        return
    if not text.startswith("/") and text:
        draft.understood(given.at, f"is read as /{text.removeprefix('./')}")
        text = f"/{text.removeprefix('./')}"
    draft.put(("build", "workdir"), text or given.value, given.at)


def read_runtime(draft: Draft, engine: Given | None, model: Given | None, chosen: Chosen, *, starts: bool) -> bool:
    """Writes `build.runtime`; answers whether it serves the model file by itself, as onnx does where nothing else is
    started (`starts`)."""
    if engine is None:
        return False
    if engine.value != "onnx":
        draft.put(("build", "runtime"), {"kind": engine.value}, engine.at)
        draft.understood(engine.at, f"is the runtime {engine.value}")
        return False
    if model is not None and not starts:
        draft.put(("build", "runtime"), {"kind": "onnx", "path": model.text}, engine.at)
        draft.understood(engine.at, f"{model.text} is served by the runtime onnx, without a program")
        return True
    package = "onnxruntime-gpu" if chosen.accelerator == "nvidia.com/gpu" else "onnxruntime"
    draft.put(("build", "runtime"), {"kind": "python"}, engine.at)
    named = [said(word) for word in draft.get(PYPI) or ()]
    own = [word for word in named if package_name(word) in ("onnxruntime", "onnxruntime-gpu")]
    if not own:
        draft.add(PYPI, [Given(package, engine.at)])
    with_what = ", ".join(own) or package
    draft.understood(
        engine.at, f"is the runtime python, with the package {with_what}: the program serves the model itself"
    )
    return False


def _words(draft: Draft, given: Given) -> list[object]:
    if isinstance(given.value, list):
        return [entry.value for entry in given.entries]
    if isinstance(given.value, dict):
        draft.refuse(given.at, "expected a command, as a list of words")
        return []
    try:
        return list(shlex.split(given.text))
    except ValueError as error:
        draft.refuse(given.at, f"cannot be split into words ({error}); write it as a list")
        return []


def _commands(draft: Draft, given: Given) -> list[list[object]]:
    entries = given.entries
    if not isinstance(given.value, list) or not entries:
        return [words] if (words := _words(draft, given)) else []
    if not any(isinstance(entry.value, list) for entry in entries):
        if all(_is_script(entry.value) for entry in entries):
            return [[entry.value] for entry in entries]
        return [words] if (words := _words(draft, given)) else []
    return [words for entry in entries if (words := _words(draft, entry))]


def _is_script(word: object) -> bool:
    return isinstance(word, str) and word.strip().endswith((".py", ".sh"))


def _command(words: list[object]) -> list[object]:
    """With the interpreter of a script in front, since nothing else finds it."""
    first = words[0].strip() if isinstance(words[0], str) else words[0]
    if _is_script(first) and not str(first).startswith("/"):
        return ["python" if str(first).endswith(".py") else "bash", first, *words[1:]]
    return [first, *words[1:]]


def _shown(command: list[object]) -> str:
    return shlex.join(said(word) for word in command)[:200]
