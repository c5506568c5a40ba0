"""A group of commands whose first word may be what its default command takes: `longshore build FILE`."""

from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultGroup(TyperGroup):
    """Calls `default` where the first word names no command; its help is that of the default command, with the others
    behind it."""

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asks_help = bool(args) and args[0] in ctx.help_option_names
        completes = ctx.resilient_parsing and not args
        if not asks_help and not completes and (not args or args[0] not in self.commands):
            if args and not ctx.resilient_parsing:
                self.refuse_mistyped(args[0])
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Commands, and options of the default one."""
        return [*super().shell_complete(ctx, incomplete), *self.commands[self.default].shell_complete(ctx, incomplete)]

    def refuse_mistyped(self, word: str) -> None:
        """Raises UsageProblem where the word must be meant for a command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        start = self.commands[self.default]
        others = {name: command for name, command in self.commands.items() if name != self.default}
        shown = TyperGroup(
            name=self.name, commands=others, params=start.params, help=start.help,
            rich_markup_mode=self.rich_markup_mode, subcommand_metavar="| COMMAND [ARGS]...",
        )  # fmt: skip
        shown.format_help(ctx, formatter)
