"""`longshore deployments`: lists them, and holds the commands that are about one deployment's history."""

import typer

from controller.cli import deployments, history
from controller.cli.default_group import DefaultGroup

# What `longshore deployments NAME` calls. A deployment of this name, or of another command's, is shown by `show NAME`.
DEFAULT = "show"


class DeploymentGroup(DefaultGroup):
    default = DEFAULT


app = typer.Typer(
    cls=DeploymentGroup,
    name="deployments",
    help="List deployments; show one, its history, what changed; go back to an earlier revision.",
    no_args_is_help=False,
)
app.command(name=DEFAULT, hidden=True)(deployments.deployments)
app.command()(history.history)
app.command()(history.diff)
app.command()(history.undo)
