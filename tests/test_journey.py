"""One whole call, from configuration to its last event, through real processes and real sockets."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.support import published_events, second_opinion
from tests.support.audio import mp3, mp3_base64
from tests.support.faulty_http import FakeVendor, Received, Reply
from tests.support.up import Processes, environment, manage, running_up
from tests.support.vendors import FakeElevenLabs, FakeTwilio
from tests.support.waiting import PATIENCE_SECONDS, patience

CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"


class RecordingHost(FakeVendor):
    """A call system's recordings."""

    def answer(self, request: Received) -> Reply:
        return Reply(200, body=mp3(300), headers={"Content-Type": "audio/mpeg"})


class Listener:
    """A WebSocket client that keeps every frame, each checked against the published document."""

    def __init__(self, demo: dict[str, str]) -> None:
        self._demo = demo
        self.events: list[dict[str, Any]] = []

    async def follow_until(self, count: int) -> None:
        """Connect, go on after the last event seen, and leave abruptly once `count` events have come in all."""
        since = self.events[-1]["seq"] if self.events else 0
        headers = {"Authorization": f"Bearer {self._demo['apiKey']}"}
        connection = await connect(f"{self._demo['realtimeUrl']}?since={since}", additional_headers=headers)
        try:
            async with patience():
                await self._read(connection, count)
        finally:
            connection.transport.abort()

    async def _read(self, connection: ClientConnection, count: int) -> None:
        while len(self.events) < count:
            frame = published_events.check(await connection.recv())
            if frame["type"] == "event":
                self.events.append(frame)


async def post(http: httpx.AsyncClient, path: str, token: str, body: dict[str, Any]) -> httpx.Response:
    return await http.post(path, json=body, headers={"Authorization": f"Bearer {token}"})


def rows(data_dir: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(data_dir / "relay.db")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


async def test_a_whole_call_from_configuration_to_its_last_event(tmp_path: Path) -> None:
    """Every row, every event in order, every stored byte and every answer is what the contract promises."""
    async with FakeTwilio() as twilio, FakeElevenLabs() as elevenlabs, RecordingHost() as host:
        env = environment(
            tmp_path / "var",
            twilio_url=twilio.url,
            elevenlabs_url=elevenlabs.url,
            public_url="https://relay.example",
            download_allowed_networks="127.0.0.0/8",
        )
        async with running_up(env) as running:
            hooks = {"response": [second_opinion.hear]}
            async with httpx.AsyncClient(
                base_url=running.demo["apiUrl"], event_hooks=hooks, trust_env=False, timeout=PATIENCE_SECONDS
            ) as http:
                await play(running, env, http, twilio, elevenlabs, host)


async def play(
    running: Processes,
    env: dict[str, str],
    http: httpx.AsyncClient,
    twilio: FakeTwilio,
    elevenlabs: FakeElevenLabs,
    host: RecordingHost,
) -> None:
    demo, tools = running.demo, "/api/webhook/elevenlabs/tools"
    chosen = await manage(
        env, "org", "sms", "Demo", "twilio", "--credentials", "-", stdin=json.dumps(twilio.credentials)
    )
    assert chosen[0] == 0, chosen

    # The superadmin configures voice AI; the agent gets its secret, and ElevenLabs our webhook.
    saved = await post(
        http,
        "/api/calls/voice-ai/config",
        demo["superadminToken"],
        {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key, "generateToolSecret": True},
    )
    secret = saved.json()["elevenlabsToolSecret"]
    assert [hook["webhook_url"] for hook in elevenlabs.webhooks.values()] == [
        "https://relay.example/api/webhook/elevenlabs"
    ]

    # Somebody is at the desk when the call connects. The agent greets by name, asks who is there, and gets an address.
    headers = {"Authorization": f"Bearer {demo['superadminToken']}"}
    present = await http.put("/api/user/availability", json={"isAvailable": True}, headers=headers)
    connected = {
        "conversation_id": CONVERSATION,
        "caller_id": demo["contactPhone"],
        "called_id": demo["organizationPhone"],
    }
    greeting = await post(http, "/api/webhook/elevenlabs/personalization", secret, connected)
    available = await post(http, f"{tools}/check-availability", secret, {"conversation_id": CONVERSATION})
    hours = await post(http, f"{tools}/check-business-hours", secret, {"conversation_id": CONVERSATION})
    phone = {"phone_number": demo["contactPhone"], "conversation_id": CONVERSATION}
    updated = await post(http, f"{tools}/update-contact", secret, {**phone, "email": "alex@example.com"})
    assert present.status_code == 200
    assert (greeting.json()["caller_number"], greeting.json()["org_name"]) == (demo["contactPhone"], "Demo")
    assert available.json() == {"agents_available": True, "available_count": 1, "online_count": 1}
    assert (hours.json()["timezone"], hours.json()["organization_name"]) == ("UTC", "Demo")
    assert updated.json()["updated_fields"] == ["email"]

    # In the middle of the call: a note that names nothing but the conversation, and a text, while somebody listens.
    listener = Listener(demo)
    listening = asyncio.create_task(listener.follow_until(5))
    only = {"phone_number": "", "conversation_id": CONVERSATION}
    note = await post(http, f"{tools}/create-note", secret, {**only, "note": "Wants the corner unit."})
    text = await post(http, f"{tools}/send-sms", secret, {**phone, "message": "Here is the link."})
    await listening

    # The listener is gone when the caller asks for a person and hangs up.
    transfer = await post(
        http, f"{tools}/transfer", secret, {"reason": "Wants a person", "conversation_id": CONVERSATION}
    )
    call = {
        "direction": "inbound",
        "fromNumber": demo["contactPhone"],
        "toNumber": demo["organizationPhone"],
        "duration": 61.5,
        "status": "completed",
        "transcript": [{"role": "agent", "message": "Hello."}, {"role": "user", "message": "Hi.", "timestamp": 1.5}],
        "summary": "Wants the corner unit.",
        "recording": mp3_base64(),
        "externalCallId": CONVERSATION,
        "metadata": {"conversation_id": CONVERSATION},
    }
    first = await post(http, "/api/calls/ingest", demo["apiKey"], call)
    linked = {**call, "externalCallId": "by-url", "recording": f"{host.url}/1.mp3", "metadata": {"n": 1.5}}
    second = await post(http, "/api/calls/ingest", demo["apiKey"], linked)
    repeat = await post(http, "/api/calls/ingest", demo["apiKey"], call)

    # It comes back, in two steps, and has missed nothing.
    await listener.follow_until(10)
    await listener.follow_until(15)

    assert (saved.status_code, note.status_code, text.status_code, transfer.status_code) == (200, 200, 200, 200)
    assert (first.status_code, second.status_code, repeat.status_code) == (201, 201, 200)
    assert repeat.json() == {
        "success": True,
        "deduplicated": True,
        "callId": first.json()["callId"],
        "payloadMatches": True,
    }
    assert (transfer.json()["success"], text.json()) == (False, {"success": True, "message": "SMS sent"})
    assert_events(listener, note.json(), first.json(), second.json())
    assert_rows(running.data_dir, note.json(), first.json(), second.json())
    assert_audio(running.data_dir, first.json()["callId"], second.json()["callId"])
    assert [(sent["to"], sent["body"]) for sent in twilio.messages] == [(demo["contactPhone"], "Here is the link.")]


def assert_events(listener: Listener, note: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    told = [(event["seq"], event["event"]) for event in listener.events]
    of_a_call = ["call_initiated", "call_ended", "call_recording_ready", "fetch_messages"]
    during = ["note_created", "fetch_messages", "message_status", "transfer_requested"]
    names = ["voice_ai_webhook", "availability_changed", "contact_updated", *during, *of_a_call, *of_a_call]
    by_place = [event["data"] for event in listener.events[3:]]

    assert told == list(enumerate(names, 1))
    assert by_place[0]["noteId"] == note["note_id"]
    assert by_place[2]["status"] == "sent"
    assert by_place[3]["contactId"] == first["contactId"]
    assert {data["callId"] for data in by_place[4:8]} == {first["callId"]}
    assert {data["callId"] for data in by_place[8:12]} == {second["callId"]}
    assert (
        {data["conversationId"] for data in by_place[4:12]} == {first["conversationId"]} == {second["conversationId"]}
    )


def assert_rows(data_dir: Path, note: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    calls = rows(data_dir, "SELECT id, contact_id, conversation_id, external_call_id, status FROM call ORDER BY id")
    assert calls == [
        (first["callId"], first["contactId"], first["conversationId"], CONVERSATION, "completed"),
        (second["callId"], first["contactId"], first["conversationId"], "by-url", "completed"),
    ]
    assert rows(data_dir, "SELECT id, contact_id, type, elevenlabs_conversation_id FROM contact_note") == [
        (note["note_id"], first["contactId"], "ai_summary", CONVERSATION)
    ]
    assert rows(data_dir, "SELECT contact_id, author, status, skip_automation FROM message") == [
        (first["contactId"], "ai", "sent", 1)
    ]
    assert rows(data_dir, "SELECT call_id, contact_id, reason FROM transfer_request") == [
        (first["callId"], first["contactId"], "Wants a person")
    ]
    assert rows(data_dir, "SELECT channel_type FROM conversation ORDER BY id") == [("sms",), ("voice",)]
    assert rows(data_dir, "SELECT count(*) FROM contact") == [(1,)]
    assert rows(data_dir, "SELECT address, is_primary FROM contact_email") == [("alex@example.com", 1)]
    assert rows(data_dir, "SELECT elevenlabs_conversation_id, contact_id FROM call_context") == [
        (CONVERSATION, first["contactId"])
    ]
    assert rows(data_dir, "SELECT count(*), min(sequence), max(sequence) FROM event") == [(15, 1, 15)]


def assert_audio(data_dir: Path, first: str, second: str) -> None:
    stored = rows(data_dir, "SELECT call_id, key, size FROM recording ORDER BY call_id")
    audio = {call_id: (data_dir / "recordings" / key).read_bytes() for call_id, key, _ in stored}

    assert audio == {first: mp3(), second: mp3(300)}
    assert [size for *_, size in stored] == [len(mp3()), len(mp3(300))]
    assert len([path for path in (data_dir / "recordings").rglob("*") if path.is_file()]) == 2
