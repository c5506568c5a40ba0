"""Who is told of what the registry has got, before anything else may go wrong: so that what no build has in the end
does not stay there for ever."""

from collections.abc import Callable

# (user id, project id, repository, digest). Where the digest is not known before the push, it is told the tag first:
# then whatever lies there was pushed. It may be told of what is then not pushed after all, and more than once of one
# artifact. It may block as long as a small file takes, and never raises.
OnPushed = Callable[[str, str, str, str], None]


def nobody(user_id: str, project_id: str, repository: str, reference: str) -> None:
    """Where what is pushed stays."""
