"""GetBuildMaterials, on a real store and a real folder of documents."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.materials_store import MaterialsStore
from controller.builds.model import BuildTarget
from controller.builds.targets import load_profiles
from controller.builds.uploads import UploadStore
from controller.errors import InvalidRequest, NotFound
from controller.rpc.build_materials import MaterialCalls
from controller.rpc.build_parts import BuildParts
from controller.rpc.interceptor import caller
from controller.store.access import Principal, Role
from longshore.errors import Reason
from longshore.v1 import build_pb2
from tests.support.queueing import Bench, ScriptedBuilder, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, ScriptedBuilder()) as opened:
        yield opened


@pytest.fixture
def kept(tmp_path: Path) -> MaterialsStore:
    return MaterialsStore(tmp_path / "materials")


async def ask(bench: Bench, kept: MaterialsStore, build_id: str, target: str = "", user: str = "") -> bytes:
    principal = Principal("somebody", Role.MEMBER, user) if user else Principal("admin", Role.ADMIN)
    caller.set(principal)
    uploads = UploadStore(bench.folder / "uploads", min_free_bytes=0)
    parts = BuildParts(bench.service(), uploads, bench.logs, load_profiles(), materials=kept)
    request = build_pb2.GetBuildMaterialsRequest(build_id=build_id, target=target)
    return (await MaterialCalls(parts).GetBuildMaterials(request, None)).document


async def test_each_target_has_its_own_document(bench: Bench, kept: MaterialsStore) -> None:
    build_id = await bench.add(1, profiles=("x86-cpu", "arm64-cpu"))
    kept.save(build_id, "x86-cpu", b"{1}")
    kept.save(build_id, "arm64-cpu", b"{2}")
    assert await ask(bench, kept, build_id, "x86-cpu") == b"{1}"
    assert await ask(bench, kept, build_id, "arm64-cpu") == b"{2}"
    with pytest.raises(InvalidRequest, match="has several targets; name one of x86-cpu, arm64-cpu"):
        await ask(bench, kept, build_id)


async def test_the_only_target_need_not_be_named(bench: Bench, kept: MaterialsStore) -> None:
    build_id = await bench.add(1)
    with pytest.raises(NotFound, match="has no bill of materials; it has one once it has succeeded") as caught:
        await ask(bench, kept, build_id)
    assert caught.value.reason is Reason.NO_MATERIALS
    kept.save(build_id, "x86-cpu", b"{1}")
    assert await ask(bench, kept, build_id) == b"{1}"


async def test_an_artifact_of_another_build_has_that_builds_document(bench: Bench, kept: MaterialsStore) -> None:
    first, second = await bench.add(1), await bench.add(2)
    kept.save(first, "x86-cpu", b"{1}")
    target: BuildTarget = replace(await bench.target(second), cached_from=first)
    await bench.store.transact(lambda tx: tx.builds.change_target(second, target))
    assert await ask(bench, kept, second) == b"{1}"


async def test_a_target_that_is_not_there_and_a_strangers_build_are_not_found(
    bench: Bench, kept: MaterialsStore
) -> None:
    build_id = await bench.add(1)
    kept.save(build_id, "x86-cpu", b"{1}")
    with pytest.raises(NotFound) as caught:
        await ask(bench, kept, build_id, "armv7-cpu")
    assert caught.value.reason is Reason.NO_SUCH_TARGET
    with pytest.raises(NotFound) as caught:
        await ask(bench, kept, build_id, user="mallory")
    assert caught.value.reason is Reason.NO_SUCH_BUILD
    assert await ask(bench, kept, build_id, user="alice") == b"{1}"
