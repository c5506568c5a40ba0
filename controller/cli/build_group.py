"""`longshore build`: builds a file, and holds the commands that are about one build."""

import re
from pathlib import Path

import typer

from controller.cli import build_records, building
from controller.cli.build_inputs import near
from controller.cli.default_group import DefaultGroup
from controller.cli.errors import UsageProblem

# What `longshore build FILE` calls. A file of this name, or of another command's, is given as ./NAME.
DEFAULT = "start"


class BuildGroup(DefaultGroup):
    default = DEFAULT

    def refuse_mistyped(self, word: str) -> None:
        """`longshore build cancl ID` means no file."""
        hint = near(word, set(self.commands) - {DEFAULT})
        if hint and re.fullmatch("[a-z]+", word) and not Path(word).exists():
            raise UsageProblem(f"no command, file or folder '{word}'{hint}")


app = typer.Typer(
    cls=BuildGroup, name="build", help="Build a deployment.yml; see and steer one build.", no_args_is_help=False
)
app.command(name=DEFAULT, hidden=True)(building.build)
app.command()(build_records.cancel)
app.command()(build_records.logs)
app.command()(build_records.render)
app.command(name="context")(build_records.context_of)
app.command()(build_records.materials)
