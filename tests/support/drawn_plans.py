"""Plans of images with the strangest names and texts that the spec lets in, drawn by Hypothesis."""

from hypothesis import strategies as st

from controller.rendering import ImagePlan
from controller.spec.fields import (
    APK_PACKAGE,
    APT_PACKAGE,
    CONDA_CHANNEL,
    CONDA_PACKAGE,
    DNF_PACKAGE,
    ENV_NAME,
    INDEX_URL,
    LABEL_KEY,
    PYPI_REQUIREMENT,
    SECRET_NAME,
)
from controller.spec.image_names import IMAGE

# Text as the spec lets it in: no control characters; tabs are allowed.
nasty = st.text(
    st.one_of(
        st.sampled_from(list("\"'\\$`#;&|<>(){}[]*?!~=, \t")),
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\x7f\x85"),
    ),
    max_size=30,
)
paths = nasty.map(lambda text: "/" + text.replace("..", ""))


def pattern(regex: str) -> st.SearchStrategy[str]:
    return st.from_regex(regex.removesuffix("$") + r"\Z", fullmatch=False).filter(lambda text: not text.endswith("-"))


def some(regex: str, at_most: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(pattern(regex), max_size=at_most).map(tuple)


plans = st.builds(
    ImagePlan,
    base=pattern(IMAGE),
    workdir=paths,
    cache_scope=nasty,
    apt=some(APT_PACKAGE),
    dnf=some(DNF_PACKAGE),
    apk=some(APK_PACKAGE),
    conda=some(CONDA_PACKAGE),
    conda_channels=some(CONDA_CHANNEL),
    conda_scripts=some(r"^[A-Za-z0-9_.+!-]{1,9} [A-Za-z0-9_.+!-]{1,9} [0-9]{1,3}$"),
    pypi=some(PYPI_REQUIREMENT),
    pypi_indexes=some(INDEX_URL, 2),
    prepared_root=st.booleans(),
    prepared_apt=st.booleans(),
    configure_apt=st.booleans(),
    prepared_pypi=st.booleans(),
    runtime_files=st.sampled_from([(), (("serve.py", b""),)]),
    folders=st.sampled_from([(), ("files",), ("large/00", "files")]),
    steps=st.lists(nasty.filter(bool), max_size=2).map(tuple),
    secrets=some(SECRET_NAME, 2),
    environment=st.lists(st.tuples(pattern(ENV_NAME), nasty), max_size=3).map(tuple),
    labels=st.lists(st.tuples(pattern(LABEL_KEY), nasty), min_size=1, max_size=3).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
    volumes=st.lists(paths.map(str.rstrip), max_size=2).map(tuple),
    entrypoint=st.lists(nasty, max_size=3).map(tuple),
    allow_root=st.booleans(),
)
