"""What this machine says that it builds for."""

from pathlib import Path
from typing import Any, cast

import pytest

from controller.builds import emulation, own_place
from controller.builds.builder import ImageBuilder
from controller.builds.hosts import Abilities
from controller.builds.own_place import OwnPlace


class AbleBuilder:
    async def probe(self) -> str:
        return ""


@pytest.mark.parametrize("state", ["enabled", "disabled", None])
async def test_this_machine_emulates_only_what_the_kernel_has_a_handler_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    monkeypatch.setattr(emulation, "BINFMT", tmp_path)
    for module in (emulation, own_place):
        monkeypatch.setattr(module, "own_architecture", lambda: "amd64")
    if state:
        (tmp_path / "qemu-aarch64").write_text(f"{state}\ninterpreter /usr/bin/qemu-aarch64\n")
    abilities = await OwnPlace(cast(ImageBuilder, cast(Any, AbleBuilder()))).probe()
    native, arm64, arm = frozenset({"linux/amd64"}), frozenset({"linux/arm64"}), frozenset({"linux/arm/v7"})
    emulated = arm64 if state == "enabled" else frozenset()
    # The rest is made as long as nothing of it has to run.
    assert abilities == Abilities(native, emulated, (arm64 | arm) - emulated)
