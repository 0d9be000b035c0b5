"""The front door: that every setting gets to where it is heeded."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions import administer
from app import create_app, open_relay, rules_of
from config import Settings, load_settings
from tests.support.api import INGEST, TOOLS, running_api
from tests.support.vendors import FakeSinch, FakeTwilio
from version import VERSION

KB = 1024
TEXT = {"phone_number": "+14165550100", "message": "Here is the link."}


async def test_rules_are_the_settings_in_seconds_and_bytes(tmp_path: Path) -> None:
    """Minutes become seconds, and no setting is taken for another."""
    sizes = {"max_body_bytes": 7 * KB, "max_document_bytes": 5 * KB, "held_body_bytes": 9 * KB}
    minutes = {
        "tool_secret_overlap_minutes": 2,
        "webhook_tolerance_minutes": 3,
        "token_lifetime_minutes": 4,
        "sign_in_window_minutes": 5,
    }
    plain: dict[str, Any] = {
        "tool_replay_seconds": 6,
        "sms_timeout_seconds": 3,
        "max_recording_bytes": 11 * KB,
        "sign_in_attempts_per_account": 12,
        "sign_in_attempts_per_address": 13,
        "public_url": "https://relay.example/",
        "realtime_public_url": "wss://live.example/v1",
    }
    settings = load_settings(_env_file=None, data_dir=tmp_path, **sizes, **minutes, **plain)
    async with open_relay(settings) as relay:
        assert relay.rules == replace(
            rules_of(Settings(_env_file=None)),
            version=VERSION,
            tool_replay=6,
            tool_secret_overlap=120,
            sms_timeout=3,
            max_body_bytes=7 * KB,
            max_document_bytes=5 * KB,
            held_body_bytes=9 * KB,
            max_recording_bytes=11 * KB,
            public_url="https://relay.example",
            webhook_tolerance=180,
            realtime_url="wss://live.example/v1",
            token_lifetime=240,
            sign_in_attempts_per_account=12,
            sign_in_attempts_per_address=13,
            sign_in_window=300,
            allowed_origins=settings.allowed_origins,
        )


async def test_bodies_are_held_to_the_limits_that_were_set(tmp_path: Path) -> None:
    """A document to one, a body with a recording to the other."""
    async with running_api(tmp_path, max_document_bytes=2 * KB, max_body_bytes=8 * KB) as api:
        notes = [await api.tool("create-note", {"note": "x" * size}) for size in (KB, 3 * KB)]
        calls = [await api.ingest({"recording": "A" * size}) for size in (4 * KB, 9 * KB)]

    assert [answer.status_code for answer in notes] == [200, 413]
    assert [answer.status_code for answer in calls] == [400, 413]


async def test_large_bodies_are_held_to_the_room_that_was_set(tmp_path: Path) -> None:
    """While one is on its way, a second that does not fit beside it is asked to come back."""
    is_read, go_on = asyncio.Event(), asyncio.Event()
    large = b'{"recording": "' + b"A" * 2048 * KB + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        yield large[:-1]
        is_read.set()
        await go_on.wait()
        yield large[-1:]

    async with running_api(tmp_path, held_body_bytes=9 * 1024 * KB, max_body_bytes=3 * 1024 * KB) as api:
        transport = httpx.ASGITransport(create_app(api.relay))
        headers = {"Authorization": f"Bearer {api.demo.api_key.get_secret_value()}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http:
            first = asyncio.create_task(http.post(INGEST, content=pieces()))
            await is_read.wait()
            second = await http.post(INGEST, content=large)
            go_on.set()

            assert (second.status_code, (await first).status_code) == (503, 400)


async def test_texts_share_an_access_token(tmp_path: Path) -> None:
    """Sinch is asked for one as long as the last is good: a text in a call takes one request."""
    async with FakeSinch() as sinch, running_api(tmp_path, sinch_auth_url=sinch.url, sinch_sms_url=sinch.url) as api:
        await administer.configure_sms(api.relay, api.organization_id, "sinch", dict(sinch.project))
        for number in range(3):
            answer = await api.post(
                f"{TOOLS}/send-sms", TEXT | {"message": f"Text {number}"}, api.demo.tool_secret.get_secret_value()
            )
            assert answer.json()["success"] is True

    assert (len(sinch.batches), len(sinch.tokens)) == (3, 1)


async def test_vendors_are_reached_without_the_environments_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials go where the settings say and nowhere else."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with FakeTwilio() as twilio, running_api(tmp_path, twilio_url=twilio.url) as api:
        await administer.configure_sms(api.relay, api.organization_id, "twilio", dict(twilio.credentials))
        answer = await api.tool("send-sms", TEXT)

    assert answer.json()["success"] is True
    assert len(twilio.messages) == 1
