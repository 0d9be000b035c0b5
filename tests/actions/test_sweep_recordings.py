from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actions.sweep_recordings import Swept, sweep_recordings
from tests.support.api import Api, running_api
from tests.support.audio import mp3, mp3_base64

CALL = {
    "direction": "inbound",
    "fromNumber": "+14165550123",
    "toNumber": "+12362320246",
    "duration": 1,
    "status": "completed",
    "transcript": [],
    "summary": "x",
    "recording": mp3_base64(),
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var") as api:
        yield api


async def leave_behind(api: Api, count: int) -> None:
    async def audio() -> AsyncIterator[bytes]:
        yield mp3()

    for index in range(count):
        await api.relay.store.store(
            f"org/{api.organization_id}/calls/{index:024x}/recording.mp3", audio(), "audio/mpeg"
        )


async def test_only_recordings_without_a_call_go(api: Api) -> None:
    """What belongs to a call stays; a dry run changes nothing; a second sweep finds nothing left."""
    await api.ingest(CALL)
    kept = api.objects()
    await leave_behind(api, 250)
    dry = await sweep_recordings(api.relay, older_than=-60)
    wet = await sweep_recordings(api.relay, older_than=-60, apply=True)
    again = await sweep_recordings(api.relay, older_than=-60, apply=True)

    assert dry == Swept(objects=251, orphans=250, removed=0)
    assert wet == Swept(objects=251, orphans=250, removed=250)
    assert again == Swept(objects=1, orphans=0, removed=0)
    assert api.objects() == kept


async def test_a_recording_that_is_young_is_left_alone(api: Api) -> None:
    """Its call may be about to be committed."""
    await leave_behind(api, 1)
    swept = await sweep_recordings(api.relay, older_than=60, apply=True)

    assert swept == Swept(objects=1, orphans=0, removed=0)
    assert len(api.objects()) == 1
