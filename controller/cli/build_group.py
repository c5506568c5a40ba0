"""`longshore build`: builds a file, and holds the commands that are about one build."""

import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from controller.cli import build_records, building
from controller.cli.build_inputs import near
from controller.cli.errors import UsageProblem

# What `longshore build FILE` calls. A file of this name, or of another command's, is given as ./NAME.
DEFAULT = "start"


class BuildGroup(TyperGroup):
    """A group whose first word may be the file to build in place of a command."""

    default = DEFAULT

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asks_help = bool(args) and args[0] in ctx.help_option_names
        completes = ctx.resilient_parsing and not args
        if not asks_help and not completes and (not args or args[0] not in self.commands):
            if args and not ctx.resilient_parsing:
                self._refuse_mistyped(args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Commands, and options of the default one."""
        return [*super().shell_complete(ctx, incomplete), *self.commands[DEFAULT].shell_complete(ctx, incomplete)]

    def _refuse_mistyped(self, word: str) -> None:
        """`longshore build cancl ID` means no file."""
        hint = near(word, set(self.commands) - {DEFAULT})
        if hint and re.fullmatch("[a-z]+", word) and not Path(word).exists():
            raise UsageProblem(f"no command, file or folder '{word}'{hint}")

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of the default command, with the other commands behind it."""
        start = self.commands[DEFAULT]
        others = {name: command for name, command in self.commands.items() if name != DEFAULT}
        shown = TyperGroup(
            name=self.name, commands=others, params=start.params, help=start.help,
            rich_markup_mode=self.rich_markup_mode, subcommand_metavar="| COMMAND [ARGS]...",
        )  # fmt: skip
        shown.format_help(ctx, formatter)


app = typer.Typer(
    cls=BuildGroup, name="build", help="Build a deployment.yml; see and steer one build.", no_args_is_help=False
)
app.command(name=DEFAULT, hidden=True)(building.build)
app.command()(build_records.cancel)
app.command()(build_records.logs)
app.command()(build_records.render)
app.command(name="context")(build_records.context_of)
app.command()(build_records.materials)
