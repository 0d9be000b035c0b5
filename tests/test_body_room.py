"""Room for large bodies, at the public door: who may hold how much of it, and who is served meanwhile."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from pydantic import SecretStr

from actions.administer import api_key_of, create_organization, create_user
from domain.principals import Role
from tests.support.api import INGEST, Api, running_api
from tests.support.audio import mp3_base64
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import patience
from tests.support.wire import Answer, Headers, Wire, bearer, head, request, wire

WEBHOOK = "/api/webhook/elevenlabs"
MB = 1 << 20


@pytest.fixture
async def elevenlabs() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as elevenlabs:
        yield elevenlabs


@pytest.fixture
async def api(tmp_path: Path, elevenlabs: FakeElevenLabs) -> AsyncIterator[Api]:
    """The API with room for three bodies of the largest size, of each kind; an owner's share is one of them."""
    room = {"max_body_bytes": 3 * MB, "held_body_bytes": 9 * MB, "held_unverified_body_bytes": 9 * MB}
    async with running_api(tmp_path / "var", elevenlabs_url=elevenlabs.url, **room) as api:
        config = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key}
        assert (await api.configure(config)).status_code == 200
        yield api


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


def call(api: Api, size: int, **more: Any) -> bytes:
    """Write a call whose recording makes it about so long."""
    frames = size * 3 // 4 // 417
    body = {
        "direction": "inbound",
        "fromNumber": api.demo.contact_phone,
        "toNumber": api.demo.organization_phone,
        "duration": 1,
        "status": "completed",
        "transcript": [],
        "summary": "x",
        "recording": mp3_base64(frames),
    }
    return json.dumps(body | more).encode()


def delivery(elevenlabs: FakeElevenLabs, size: int) -> tuple[Headers, bytes]:
    """Return a signed delivery about so long."""
    document = {
        "type": "post_call_audio",
        "data": {"conversation_id": f"conv_{token_hex(8)}", "full_audio": mp3_base64(size * 3 // 4 // 417)},
    }
    callback = elevenlabs.delivery(elevenlabs.settings["webhooks"]["post_call_webhook_id"], document)
    return [(name.encode(), value.encode()) for name, value in callback.headers.items()], callback.body


def key(api: Api) -> Headers:
    return [(b"Content-Type", b"application/json"), bearer(api.demo.api_key.get_secret_value())]


async def begun(
    stack: contextlib.AsyncExitStack, api: Api, path: str, headers: Headers, body: bytes, source: str = "127.0.0.1"
) -> Wire:
    """Announce a body of the largest size and send this much of it."""
    line = await stack.enter_async_context(wire(api.url, source))
    await line.send(head("POST", path, [*headers, (b"Content-Length", b"%d" % (3 * MB))]) + body)
    return line


async def sent(api: Api, path: str, headers: Headers, body: bytes, source: str = "127.0.0.1") -> Answer:
    """Send a whole request."""
    async with wire(api.url, source) as line:
        await line.send(request("POST", path, headers, body))
        return await line.answer()


async def test_bodies_that_are_only_announced_take_no_room(
    api: Api, elevenlabs: FakeElevenLabs, stack: contextlib.AsyncExitStack
) -> None:
    """Neither those of a caller that is known nor those of anybody: everybody else's are read as ever."""
    headers, _ = delivery(elevenlabs, 1000)
    for _ in range(10):
        await begun(stack, api, INGEST, key(api), b"{")
        await begun(stack, api, WEBHOOK, headers, b"{")

    assert (await sent(api, INGEST, key(api), call(api, 2 * MB))).status == 201
    assert (await sent(api, WEBHOOK, *delivery(elevenlabs, 2 * MB))).status == 200


async def held(stack: contextlib.AsyncExitStack, api: Api, path: str, headers: Headers, source: str) -> None:
    """Have more of a body held than is left to another one of the same owner."""
    await begun(stack, api, path, headers, b" " * (2 * MB + MB // 2), source)
    # What is announced takes no room, but is refused at once when it would not fit: then the server has taken it all.
    async with patience():
        while True:
            async with wire(api.url, source) as other:
                await other.send(head("POST", path, [*headers, (b"Content-Length", b"%d" % MB)]))
                with contextlib.suppress(TimeoutError):
                    answer = await other.answer_within(0.2)
                    assert (answer.status, answer.header("retry-after")) == (503, "5")
                    return


async def test_an_organization_holds_no_more_than_its_share(api: Api, stack: contextlib.AsyncExitStack) -> None:
    """What it sends more is refused; another organization's calls are recorded meanwhile."""
    other = await another(api)
    await held(stack, api, INGEST, key(api), "127.0.0.1")

    assert (await sent(api, INGEST, key(api), call(api, MB))).status == 503
    assert (await sent(api, INGEST, other, call(api, 2 * MB))).status == 201


async def another(api: Api) -> Headers:
    """Return the headers of a caller of another organization."""
    organization = await create_organization(api.relay, "Another")
    password = SecretStr(token_hex(16))
    user = await create_user(
        api.relay, organization.id, email="a@another.example", full_name="A", password=password, role=Role.AGENT
    )
    secret = await api_key_of(api.relay, organization.id, user.id)
    return [(b"Content-Type", b"application/json"), bearer(secret.get_secret_value())]


async def test_an_address_without_a_token_holds_no_more_than_its_share(
    api: Api, elevenlabs: FakeElevenLabs, stack: contextlib.AsyncExitStack
) -> None:
    """Deliveries from elsewhere, and callers that are known, have room of their own."""
    await held(stack, api, WEBHOOK, delivery(elevenlabs, 1000)[0], "127.0.0.2")

    assert (await sent(api, WEBHOOK, *delivery(elevenlabs, MB), source="127.0.0.2")).status == 503
    assert (await sent(api, WEBHOOK, *delivery(elevenlabs, 2 * MB), source="127.0.0.3")).status == 200
    assert (await sent(api, INGEST, key(api), call(api, 2 * MB), source="127.0.0.2")).status == 201
