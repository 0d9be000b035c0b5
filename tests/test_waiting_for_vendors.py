"""While a vendor is waited for, nothing in the database is locked."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actions import administer
from persistence import outbox
from tests.support.api import Api, engine_of_api, running_api
from tests.support.audio import mp3
from tests.support.faulty_http import FakeVendor, Fault, Received, Reply
from tests.support.vendors import FakeElevenLabs, FakeTwilio

PHONE = "+14165550100"


class RecordingHost(FakeVendor):
    """A call system's recordings."""

    def answer(self, _: Received) -> Reply:
        return Reply(200, body=mp3(60), headers={"Content-Type": "audio/mpeg"})


def text(api: Api, _: Any) -> Awaitable[Any]:
    return api.tool("send-sms", {"phone_number": PHONE, "message": "Here is the link."})


def save(api: Api, elevenlabs: Any) -> Awaitable[Any]:
    return api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})


def push(api: Api, host: Any) -> Awaitable[Any]:
    call = {
        "direction": "inbound",
        "fromNumber": PHONE,
        "toNumber": "+12362320246",
        "duration": 1,
        "status": "completed",
        "transcript": [],
        "summary": "x",
        "recording": f"{host.url}/1.mp3",
    }
    return api.ingest(call)


@pytest.mark.parametrize(
    ("vendor", "setting", "ask"),
    [(FakeTwilio, "twilio_url", text), (FakeElevenLabs, "elevenlabs_url", save), (RecordingHost, None, push)],
)
async def test_others_write_while_a_vendor_is_waited_for(
    tmp_path: Path,
    engine: str,
    vendor: type[FakeVendor],
    setting: str | None,
    ask: Callable[[Api, Any], Awaitable[Any]],
) -> None:
    """The organization's own row, which every event needs, can be had before the vendor has answered."""
    engine_of_api.set(engine)
    async with vendor() as playing, running_api(tmp_path, **({setting: playing.url} if setting else {})) as api:
        if isinstance(playing, FakeTwilio):
            await administer.configure_sms(api.relay, api.organization_id, "twilio", dict(playing.credentials))
        playing.behave(Fault.HANG_AFTER_READING, always=True)
        asking = asyncio.ensure_future(ask(api, playing))
        await playing.until_received(1)
        await api.relay.database.write(lambda: outbox.hold(api.organization_id))
        was_waiting = not asking.done()
        playing.release()
        answer = await asking

    assert was_waiting
    assert answer.is_success
