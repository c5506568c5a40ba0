"""What differs between two specs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.model import ContextFile
from controller.deployments.changes import FieldChange, changes, file_changes, spec_changes
from controller.spec.loader import load_spec

TEXT = """\
version: 1
name: digits
build: {packages: {pypi: [numpy]}, files: [server.py]}
deploy:
  entrypoint: [python3, server.py]
  resources: {memory: 512MiB}
  environment: {LEVEL: "1"}
  network: {ports: [{name: http, container: 80}, {name: admin, container: 81}]}
targets: [{profile: x86-cpu}, {profile: arm64-cpu}]
"""


def told(before: str, after: str) -> list[tuple[str, str | None, str | None]]:
    found = spec_changes(load_spec(before.encode()), load_spec(after.encode()))
    return [(change.path, change.before, change.after) for change in found]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("512MiB", "1GiB", ("deploy.resources.memory", "536870912", "1073741824")),
        ("container: 81", "container: 82", ("deploy.network.ports[admin].container", "81", "82")),
        ("[numpy]", "[numpy, scipy]", ("build.packages.pypi", '["numpy"]', '["numpy", "scipy"]')),
        ("arm64-cpu}", "arm64-cpu, labels: {site: a}}", ("targets[arm64-cpu].labels.site", None, '"a"')),
        ('{LEVEL: "1"}', "{}", ("deploy.environment.LEVEL", '"1"', None)),
    ],
)
def test_a_field_that_differs_is_told_with_both_values(old: str, new: str, change: tuple[str, str, str]) -> None:
    assert told(TEXT, TEXT.replace(old, new)) == [change]


def test_the_same_in_other_words_differs_in_nothing() -> None:
    assert told(TEXT, TEXT.replace("512MiB", "0.5GiB")) == []
    swapped = TEXT.replace("{profile: x86-cpu}, {profile: arm64-cpu}", "{profile: arm64-cpu}, {profile: x86-cpu}")
    assert told(TEXT, swapped) == []


def test_files_differ_by_their_content() -> None:
    before = [ContextFile("a", "sha256:1", 1), ContextFile("b", "sha256:2", 1)]
    after = [ContextFile("b", "sha256:3", 1), ContextFile("c", "sha256:4", 1)]
    assert file_changes(before, after) == [
        FieldChange("files[a]", '"sha256:1"', None),
        FieldChange("files[b]", '"sha256:2"', '"sha256:3"'),
        FieldChange("files[c]", None, '"sha256:4"'),
    ]


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
KEYS = st.sampled_from(["a", "b", "name"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@given(JSON, JSON)
def test_a_difference_seen_from_the_other_side_is_the_same(one: object, other: object) -> None:
    assert changes(one, one) == []
    seen = changes(one, other)
    assert [(c.path, c.after, c.before) for c in seen] == [(c.path, c.before, c.after) for c in changes(other, one)]
