"""No secret is in what people read: not in another form, not cut in two, not in a failure."""

import base64
import json
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.log import KEPT_LINES, BuildLog
from controller.builds.masking import HIDDEN, Mask
from controller.builds.model import BuildFailed
from controller.builds.progress_lines import MAX_LINE, ProgressLines

# A star is what stands for a secret.
TEXT = st.text(string.ascii_letters + string.digits + " /+=%&?:@\"'\\$éß", min_size=4, max_size=60).filter(
    lambda text: len(text.strip()) >= 4
)
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nAoIBAQC7VJTUt9Us8cKj\n-----END KEY-----\n"


@given(st.lists(TEXT, min_size=1, max_size=4), st.text(string.ascii_letters, max_size=30))
def test_no_form_of_a_secret_is_left(secrets: list[str], around: str) -> None:
    mask = Mask([secret.encode() for secret in secrets])
    for secret in secrets:
        raw = secret.encode()
        forms = [secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]]
        forms += [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()]
        for form in forms:
            assert form not in mask(f"{around}{form}{around}")


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "longshore"])
def test_a_password_inside_an_authorization_header_is_hidden(user: str) -> None:
    header = base64.b64encode(f"{user}:hunter2-and-more".encode()).decode()
    masked = Mask(["hunter2-and-more"])(f"Authorization: Basic {header}")
    assert HIDDEN in masked
    assert b"unter2-and-mor" not in base64.b64decode(masked.rpartition(" ")[2].replace(HIDDEN, "") + "==")


def test_each_line_of_a_secret_with_several_is_hidden_and_short_ones_are_not() -> None:
    mask = Mask([PEM])
    for line in PEM.splitlines():
        assert mask(f"  {line}") == f"  {HIDDEN}"
    assert mask("a { b }") == "a { b }"
    assert Mask(['{\n"key": "abcdef"\n}'])("if (x) { y }") == "if (x) { y }"


def test_base64_that_is_broken_into_lines_is_hidden() -> None:
    secret = bytes(range(256))
    mask = Mask([secret])
    for line in base64.encodebytes(secret).decode().splitlines():
        assert mask(line) == HIDDEN


def test_a_secret_that_begins_as_another_does_uncovers_nothing() -> None:
    assert Mask(["hunter", "hunter22"])("hunter22 hunter") == f"{HIDDEN} {HIDDEN}"


def test_a_password_in_an_address_is_hidden_without_being_known() -> None:
    text = "Looking in indexes: https://bob:pa$$w0rd@index.example/simple, http://a:b/c@d"
    assert Mask()(text) == f"Looking in indexes: https://bob:{HIDDEN}@index.example/simple, http://a:b/c@d"


def test_a_failure_says_no_secret() -> None:
    failure = BuildFailed(
        "StepFailed", "no hunter22", step="RUN hunter22", last_lines=("x", "hunter22"), retryable=True
    )
    masked = Mask([b"hunter22\n"]).failure(failure)
    assert (masked.message, masked.step, masked.last_lines) == ("no ***", "RUN ***", ("x", "***"))
    assert (masked.reason, masked.retryable) == ("StepFailed", True)


@given(
    st.lists(st.text("ab", min_size=4, max_size=40), min_size=1, max_size=3),
    st.integers(-60, 60),
    st.integers(1, 3),
    st.lists(st.integers(1, 20_000), max_size=4),
)
def test_a_secret_is_hidden_also_where_a_long_line_is_cut(
    secrets: list[str], shift: int, pieces: int, cuts: list[int]
) -> None:
    """Nothing else of the line is lost."""
    seen: list[str] = []
    log = BuildLog(lambda _, text: seen.append(text), secrets)
    before, behind = "x" * (pieces * MAX_LINE + shift), "y" * 3 * MAX_LINE
    lines, printed = ProgressLines(), f"{before}{''.join(secrets)}{behind}\nnext\n".encode()
    for cut in cuts:
        piece, printed = printed[:cut], printed[cut:]
        for text in lines.feed(piece):
            log("stdout", text)
    for text in [*lines.feed(printed), *lines.end()]:
        log("stdout", text)
    whole = "".join(seen)
    assert not any(secret in whole for secret in secrets)
    assert whole.startswith(before + HIDDEN)
    assert whole.endswith(behind + "next")
    assert seen[-1] == "next"
    assert max(map(len, seen)) <= MAX_LINE


def test_a_secret_that_repeats_itself_without_end_fills_no_memory() -> None:
    seen: list[str] = []
    log = BuildLog(lambda _, text: seen.append(text), ["aaaa"])
    for _ in range(100):
        log("stdout", "a" * MAX_LINE)
    assert len(seen) > 10
    assert set("".join(seen)) == {"*"}


def test_only_the_last_lines_are_kept() -> None:
    log = BuildLog(lambda *_: None)
    for number in range(KEPT_LINES + 5):
        log("stdout", str(number))
    assert log.recent()[0] == "5"
