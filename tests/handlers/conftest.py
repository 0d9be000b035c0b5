from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, running_api
from tests.support.vendors import FakeElevenLabs, FakeTwilio


@pytest.fixture(autouse=True)
def on_engine(on_engine: None) -> None:
    """Run every API of these tests on each engine."""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var") as api:
        yield api


@pytest.fixture
async def twilio() -> AsyncIterator[FakeTwilio]:
    async with FakeTwilio() as twilio:
        yield twilio


@pytest.fixture
async def elevenlabs() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as elevenlabs:
        yield elevenlabs
