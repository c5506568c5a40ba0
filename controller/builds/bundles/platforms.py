"""Which wheels a Python on a Linux takes, and which of them it likes best. Pure.

https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
"""

import functools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from packaging.tags import Tag, compatible_tags, cpython_tags

# What `uv --python-platform` takes for Linux: "aarch64-manylinux_2_36".
PLATFORM = re.compile(r"([a-z0-9_]+)-manylinux_2_(\d+)")
# Names from before glibc's version was part of the name.
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# The oldest glibc that wheels of an architecture were made for.
OLDEST = {"x86_64": 5, "i686": 5}


@functools.cache
def ranks(python: str, platform: str) -> Mapping[Tag, int]:
    """Tags of wheels that fit Python `python` ("3.11") on `platform`, the best with 0. Raises ValueError."""
    match = PLATFORM.fullmatch(platform)
    if match is None:
        raise ValueError(f"{platform!r} is no platform of wheels such as x86_64-manylinux_2_36")
    major, _, minor = python.partition(".")
    version = (int(major), int(minor))
    platforms = list(_platforms(match[1], int(match[2])))
    interpreter = f"cp{major}{minor}"
    tags = [
        *cpython_tags(version, [interpreter], platforms),
        *compatible_tags(version, interpreter, platforms),
    ]
    return MappingProxyType({tag: rank for rank, tag in reversed(list(enumerate(tags)))})


def _platforms(architecture: str, glibc: int) -> Iterator[str]:
    for minor in range(glibc, OLDEST.get(architecture, 17) - 1, -1):
        yield f"manylinux_2_{minor}_{architecture}"
        if minor in OLD_NAMES:
            yield f"{OLD_NAMES[minor]}_{architecture}"
    yield f"linux_{architecture}"
