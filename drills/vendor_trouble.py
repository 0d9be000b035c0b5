"""The SMS provider and ElevenLabs refuse, stay silent, break off, or answer garbage."""

import time
from collections import Counter
from typing import Any

import httpx

from drills.ledger import balance
from drills.load import TOOLS, Callers
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, Stage, staged
from persistence.models import Message
from tests.support.faulty_http import Fault, Reply
from tests.support.vendors import FakeElevenLabs, FakeTwilio

_CONFIG = "/api/calls/voice-ai/config"
_WEBHOOKS = "/v1/workspace/webhooks"

# What befalls a connection needs a new one, so it follows what breaks the one before.
_TEXT_TROUBLES: list[tuple[Fault | Reply, set[str]]] = [
    (Fault.RESET_AFTER_READING, {"unknown"}),
    (Fault.RESET_BEFORE_READING, {"failed", "unknown"}),
    (Fault.HANG_AFTER_READING, {"unknown"}),
    (Fault.HANG_BEFORE_READING, {"failed", "unknown"}),
    (Fault.RESET_AFTER_PROCESSING, {"unknown"}),
    (Fault.HANG_AFTER_PROCESSING, {"unknown"}),
    (Reply(400, {"code": 21610, "message": "Attempt to send to unsubscribed recipient"}), {"failed"}),
    (Reply(429, {"code": 20429, "message": "Too Many Requests"}), {"failed"}),
    (Reply(500, {"code": 20500, "message": "Internal"}), {"unknown"}),
    (Reply(201, body=b"<html>gateway</html>"), {"unknown"}),
]
_CONFIG_TROUBLES: list[Fault | Reply] = [
    Reply(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}}),
    Reply(500),
    Reply(200, body=b"<html>"),
    Fault.RESET_AFTER_READING,
    Fault.HANG_AFTER_READING,
]


async def text_trouble(engine: str, repetitions: int) -> Outcome:
    """Send a text, and the same again, in every trouble; it is answered, and reaches the provider once."""
    slowest, statuses = 0.0, Counter[str]()
    async with FakeTwilio() as twilio, staged(engine, twilio=twilio) as stage:
        callers = Callers(stage, [await stage.api()])
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
            for number in range(repetitions):
                for trouble, expected in _TEXT_TROUBLES:
                    text = f"text {number} {trouble}"
                    twilio.behave(trouble)
                    slowest = max(slowest, await _text_twice(callers, http, text))
                    twilio.behave()
                    status = await _status_of(stage, text)
                    insist(status in expected, f"{trouble}: {status}")
                    statuses[status] += 1
            body = callers.text("afterwards")
            answer = await callers.send(http, f"{TOOLS}/send-sms", callers.tool_secret, body)
            insist(answer is not None and answer.json()["success"], "it does not send any more")
            callers.seen.texts.add(body["message"])
        asked = Counter(request.form.get("Body") for request in twilio.requests)
        insist(max(asked.values()) == 1, "the provider was asked twice for one text")
        there = await balance(stage, callers.seen, [message["body"] for message in twilio.messages])
    seen = callers.seen
    return Outcome(
        "SMS provider in trouble",
        engine,
        repetitions * len(_TEXT_TROUBLES),
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        slowest,
        f"{statuses['failed']} failed, {statuses['unknown']} unknown; the slowest answer took {slowest:.2f} s",
    )


async def _text_twice(callers: Callers, http: httpx.AsyncClient, text: str) -> float:
    body = callers.text("") | {"message": text, "conversation_id": text}
    began = time.monotonic()
    first = await _told(callers, http, body)
    took = time.monotonic() - began
    insist(first == await _told(callers, http, body), "the same text was answered in another way")
    return took


async def _told(callers: Callers, http: httpx.AsyncClient, body: dict[str, str]) -> Any:
    answer = await callers.send(http, f"{TOOLS}/send-sms", callers.tool_secret, body)
    insist(answer is not None and answer.status_code == 200, f"in trouble, it answered {answer}")
    said = answer.json() if answer is not None else {}
    insist(said.get("success") is False and said.get("error"), f"the agent was told {said}")
    return said


async def _status_of(stage: Stage, text: str) -> str:
    async with stage.relay() as relay:
        (message,) = await relay.database.read(lambda: list(Message.select().where(Message.text == text)))
    return str(message.status)


async def configuring_trouble(engine: str, repetitions: int) -> Outcome:
    """Save the configuration while ElevenLabs is in trouble; it is kept, and the next save repairs what is left."""
    requests = saved = 0
    async with (
        FakeElevenLabs() as elevenlabs,
        staged(
            engine, elevenlabs_url=elevenlabs.url, elevenlabs_timeout_seconds=1, public_url="https://relay.example"
        ) as stage,
    ):
        api = await stage.api()
        headers = {"Authorization": f"Bearer {stage.superadmin_token}"}
        async with httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False, timeout=READY_SECONDS) as http:
            for number in range(repetitions * len(_CONFIG_TROUBLES)):
                elevenlabs.behave(_CONFIG_TROUBLES[number % len(_CONFIG_TROUBLES)], on=_WEBHOOKS, always=True)
                change = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key}
                await _save(http, change | {"sinchEstTrunkId": f"trunk-{number}"}, f"trunk-{number}", "failed")
                elevenlabs.behave()
                await _save(http, {}, f"trunk-{number}", "configured")
                insist(len(elevenlabs.webhooks) == 1, f"there are {len(elevenlabs.webhooks)} webhooks")
                requests, saved = requests + 2, saved + 2
        insist(elevenlabs.api_key not in stage.logs(), "the vendor's key was logged")
    repeated = repetitions * len(_CONFIG_TROUBLES)
    return Outcome("ElevenLabs in trouble", engine, repeated, requests, saved, 0, 0, 0)


async def _save(http: httpx.AsyncClient, change: dict[str, Any], trunk: str, webhook: str) -> None:
    answer = await http.post(_CONFIG, json=change)
    insist(answer.is_success and answer.json()["success"], f"saving was answered {answer.status_code} {answer.text}")
    seen = (await http.get(_CONFIG)).json()["config"]
    insist(seen["sinchEstTrunkId"] == trunk, "what was saved is not there")
    insist(seen["webhook"]["status"] == webhook, f"the webhook is shown as {seen['webhook']['status']}")
