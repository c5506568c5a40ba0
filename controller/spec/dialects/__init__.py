"""Older spellings of `deployment.yml`, each read into a file of version 1.

`controller.spec.loader` asks here for every file that names no version. A dialect looks at what is written only, never
at what this installation knows, so that a stored file means the same for ever.
"""

from controller.spec.dialects import tango
from controller.spec.dialects.draft import Draft
from controller.spec.tree import Tree, plain


def normalise(tree: Tree, default_name: str = "") -> Draft | None:
    """The file in version 1, with warnings and refusals; None where it is in no dialect, but version 1, or meant so.

    `default_name` names a service that has no name in the file.
    """
    values = plain(tree.root)
    if not isinstance(values, dict) or "version" in values or not tango.written_in(values):
        return None
    return tango.read(values, tree.tuples, default_name)


def older_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that dialects have at this path besides those of version 1, for suggestions."""
    return tango.KEYS.get(path, ())
