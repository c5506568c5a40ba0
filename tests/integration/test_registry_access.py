"""Who may do what at the real registry."""

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from controller.web.registry_tokens import CONTROLLER, Scope
from tests.support.registry import RegistryUnderTest, running_registry


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryUnderTest]:
    async with running_registry(tmp_path) as running:
        yield running


def call(registry: RegistryUnderTest, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and headers of one HTTPS request."""
    request = urllib.request.Request(f"https://{registry.address}{path}", method=method, headers=headers)
    context = ssl.create_default_context(cafile=str(registry.ca_file))
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


async def token(registry: RegistryUnderTest, user: tuple[str, str], scope: str) -> str | None:
    """An access token by the registry's own instructions; None where the endpoint refuses."""
    _, headers = await asyncio.to_thread(call, registry, "GET", "/v2/", {})
    fields = dict(part.split("=", 1) for part in headers["WWW-Authenticate"].removeprefix("Bearer ").split(","))
    realm, service = fields["realm"].strip('"'), fields["service"].strip('"')
    basic = base64.b64encode(":".join(user).encode()).decode()
    url = f"{realm}?service={service}&scope={scope}"
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {basic}"})
    context = ssl.create_default_context(cafile=str(registry.ca_file))

    def fetch() -> str | None:
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return str(json.load(answer)["token"])
        except urllib.error.HTTPError as error:
            with error:
                return None if error.code == 401 else str(error)

    return await asyncio.to_thread(fetch)


async def status(registry: RegistryUnderTest, user: tuple[str, str], method: str, path: str, scope: str) -> int:
    bearer = await token(registry, user, scope)
    assert bearer is not None
    answer = await asyncio.to_thread(call, registry, method, path, {"Authorization": f"Bearer {bearer}"})
    return answer[0]


UPLOADS = "/v2/alice/digits/blobs/uploads/"
TAGS = "/v2/alice/digits/tags/list"


async def test_the_controller_may_push(registry: RegistryUnderTest) -> None:
    scope = "repository:alice/digits:pull,push"
    assert await status(registry, registry.push_credentials(), "POST", UPLOADS, scope) == 202


async def test_a_device_may_pull_what_is_meant_for_it_and_push_nothing(registry: RegistryUnderTest) -> None:
    registry.pullable.add("alice/digits")
    user = registry.device_credentials("dev-1")
    # 404: allowed to look, and nothing there.
    assert await status(registry, user, "GET", TAGS, "repository:alice/digits:pull") == 404
    assert await status(registry, user, "POST", UPLOADS, "repository:alice/digits:pull,push") == 401


async def test_a_device_may_not_pull_what_is_meant_for_others(registry: RegistryUnderTest) -> None:
    user = registry.device_credentials("dev-1")
    assert await status(registry, user, "GET", TAGS, "repository:alice/digits:pull") == 401


async def test_tokens_for_the_registry_beside_the_controller_name_their_key_and_bear_no_certificate(
    registry: RegistryUnderTest,
) -> None:
    scope = "repository:alice/digits:pull,push"
    short = await token(registry, registry.push_credentials(), scope)
    assert short is not None
    header = jwt.get_unverified_header(short)
    (key,) = json.loads((registry.folder / "token-keys.json").read_text())["keys"]
    assert header == {"alg": "ES256", "kid": key["kid"]}
    assert jwt.decode(short, jwt.PyJWK(key), algorithms=["ES256"], audience=registry.address)["sub"] == "controller"


async def test_a_registry_that_knows_the_certificate_only_gets_tokens_that_bear_it(registry: RegistryUnderTest) -> None:
    """As one is set up that somebody else runs."""
    scopes = [Scope("alice/digits", ("pull", "push"))]
    long = registry.tokens.access_token(CONTROLLER, registry.address, scopes, ())
    assert set(jwt.get_unverified_header(long)) == {"alg", "typ", "x5c"}
    answer = await asyncio.to_thread(call, registry, "POST", UPLOADS, {"Authorization": f"Bearer {long}"})
    assert answer[0] == 202


async def test_a_stranger_gets_no_token(registry: RegistryUnderTest) -> None:
    _, password = registry.device_credentials("dev-1")
    for user in (("controller", password), ("dev-1", "nonsense"), ("", "")):
        assert await token(registry, user, "repository:alice/digits:pull") is None
