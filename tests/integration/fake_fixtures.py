"""The fixture of the tests over a fake engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_on_fake import Device


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    """Whose service listens."""
    device = Device(tmp_path)
    await device.service.listen()
    yield device
    await device.service.refuse()
