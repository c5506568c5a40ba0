"""The demonstration works on a machine that reaches all else through a proxy."""

import pytest

from examples.demo import beside_proxy


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_the_demonstration_starts_is_asked_directly_and_the_exceptions_of_the_machine_stay(name: str) -> None:
    environ = {name: "intranet.example"}
    beside_proxy(environ)
    assert environ["no_proxy"] == environ["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


def test_without_exceptions_of_the_machine_there_is_no_empty_one() -> None:
    environ: dict[str, str] = {}
    beside_proxy(environ)
    assert environ["no_proxy"] == "127.0.0.1,localhost"
