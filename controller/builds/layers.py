"""Which files of a build context make which layer of the image. Pure."""

from collections.abc import Mapping, Sequence

from controller.builds.model import ContextFile

# A file of this size and more has a layer of its own, so that a change of anything else does not move it again.
LARGE_BYTES = 8 * 2**20
# Each layer costs a mount on every device; the largest files beyond that many share one.
MOST_LARGE = 16
SMALL = "files"


def file_layers(files: Sequence[ContextFile]) -> Mapping[str, tuple[ContextFile, ...]]:
    """Folder of the context to the files in it, in the order in which they are copied: the code comes last.

    The same files give the same layers in any order.
    """
    ordered = sorted(files, key=lambda file: file.path)
    large = [file for file in ordered if file.size_bytes >= LARGE_BYTES]
    alone = sorted(large, key=lambda file: -file.size_bytes)[
        : MOST_LARGE - 1 if len(large) > MOST_LARGE else MOST_LARGE
    ]
    layers: list[tuple[ContextFile, ...]] = [(file,) for file in large if file in alone]
    if rest := tuple(file for file in large if file not in alone):
        layers.append(rest)
    folders = {f"large/{number:02}": layer for number, layer in enumerate(layers)}
    if small := tuple(file for file in ordered if file.size_bytes < LARGE_BYTES):
        folders[SMALL] = small
    return folders
