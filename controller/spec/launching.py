"""How `deploy.pre_exec` and `deploy.entrypoint` become one command: each in turn, the entrypoint at last."""

import shlex
from collections.abc import Sequence

# The script is one argument of a process, which Linux limits to 128 KiB.
LONGEST_SCRIPT = 120_000


class CannotLaunch(ValueError):
    """The commands cannot be joined; the text says why."""


def launch_words(pre_exec: Sequence[Sequence[str]], entrypoint: Sequence[str]) -> tuple[str, ...]:
    """The words to execute. Without `pre_exec` they are the entrypoint.

    Else a shell runs the commands one after the other, and takes the entrypoint's place once all have ended with 0;
    the first that does not ends it with the same status. Nothing in a word is read by the shell. Raises CannotLaunch.
    """
    if not pre_exec:
        return tuple(entrypoint)
    if not entrypoint:
        raise CannotLaunch("deploy.pre_exec needs a deploy.entrypoint: that of a base image is not known here")
    commands = " && ".join(" ".join(map(_quoted, command)) for command in pre_exec)
    script = f'{commands} && exec "$@"'
    if len(script.encode()) > LONGEST_SCRIPT:
        raise CannotLaunch(f"deploy.pre_exec has more than {LONGEST_SCRIPT} bytes; put the commands into a file")
    return ("/bin/sh", "-c", script, "longshore", *entrypoint)


def _quoted(word: str) -> str:
    """Always in quotes, so that a word such as `if` or `A=1` is no syntax."""
    quoted = shlex.quote(word)
    return quoted if quoted.startswith("'") else f"'{word}'"
