"""Callers under way: calls with recordings, notes and texts, sent again until somebody says that they are done."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from drills.outcome import Broken
from drills.stage import READY_SECONDS, Process, Stage
from tests.support.audio import mp3_base64

TOOLS = "/api/webhook/elevenlabs/tools"
INGEST = "/api/calls/ingest"
# Callers that ask all the time would take from the server what it needs to start.
_PAUSE_SECONDS = 0.1
_TRIES = 3000


@dataclass
class Seen:
    """What the clients saw: calls by external id, notes and texts by their words, and everything that was answered.

    A text is `told` when the caller heard that it may not have gone through: asked for again, it stays that way.
    """

    requests: int = 0
    calls: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    slowest: float = 0

    @property
    def acknowledged(self) -> int:
        """How many answers said that it is done."""
        return len(self.calls) + len(self.notes) + len(self.texts)


class Callers:
    """Sends requests to the processes in turn, until told to stop."""

    def __init__(self, stage: Stage, processes: Sequence[Process], *, seed: int = 1) -> None:
        self.seen = Seen()
        self.stopped = False
        self._demo = stage.demo
        self._targets = itertools.cycle(processes)
        self._numbers = itertools.count(1)
        self._chance = random.Random(seed)  # noqa: S311 - a drill, repeated as it was

    @contextlib.asynccontextmanager
    async def at_work(self, workers: int) -> AsyncIterator[Seen]:
        """Keep `workers` callers busy during the block; afterwards each finishes what it began."""
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http, asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(self._work(http))
            try:
                yield self.seen
            finally:
                self.stopped = True

    async def push(self, http: httpx.AsyncClient, external_id: str) -> None:
        """Push one call until it is acknowledged."""
        call = self.call(external_id)
        answer = await self._insist(http, INGEST, self.api_key, call)
        self.seen.calls[external_id] = answer["callId"]

    async def _work(self, http: httpx.AsyncClient) -> None:
        while not self.stopped:
            kind = self._chance.choice((self._push_one, self.note, self._text))
            await kind(http, f"{next(self._numbers):06d}")

    async def _push_one(self, http: httpx.AsyncClient, number: str) -> None:
        await self.push(http, f"call-{number}")

    async def note(self, http: httpx.AsyncClient, number: str) -> None:
        """Save one note, again until it is acknowledged."""
        note = f"note {number}"
        body = {"phone_number": self._demo.contact_phone, "note": note, "conversation_id": f"conv-{number}"}
        answer = await self._insist(http, f"{TOOLS}/create-note", self.tool_secret, body)
        self.seen.notes[note] = answer["note_id"]

    async def _text(self, http: httpx.AsyncClient, number: str) -> None:
        body = self.text(number)
        answer = await self._insist(http, f"{TOOLS}/send-sms", self.tool_secret, body)
        (self.seen.texts if answer["success"] else self.seen.told).add(body["message"])

    @property
    def api_key(self) -> str:
        """The key that calls are pushed with."""
        return self._demo.api_key.get_secret_value()

    @property
    def tool_secret(self) -> str:
        """The secret that tools are called with."""
        return self._demo.tool_secret.get_secret_value()

    def text(self, number: str) -> dict[str, str]:
        """Return a text as the agent would send it."""
        phone = self._demo.contact_phone
        return {"phone_number": phone, "message": f"text {number}", "conversation_id": f"conv-{number}"}

    def call(self, external_id: str) -> dict[str, Any]:
        """Return a finished call as it would be pushed."""
        return {
            "direction": "inbound",
            "fromNumber": self._demo.contact_phone,
            "toNumber": self._demo.organization_phone,
            "duration": 1.5,
            "status": "completed",
            "transcript": [{"role": "agent", "message": "Hello."}],
            "summary": external_id,
            "recording": mp3_base64(60),
            "externalCallId": external_id,
        }

    async def _insist(self, http: httpx.AsyncClient, path: str, token: str, body: dict[str, Any]) -> Any:
        """Send until there is an answer with success, as a caller does whose vendor is restarting."""
        for _ in range(_TRIES):
            answer = await self.send(http, path, token, body)
            if answer is not None and answer.is_success:
                return answer.json()
            await asyncio.sleep(_PAUSE_SECONDS)
        raise Broken(f"{path} was never answered with success")

    async def send(self, http: httpx.AsyncClient, path: str, token: str, body: dict[str, Any]) -> httpx.Response | None:
        """Send once; None when the connection broke."""
        loop = asyncio.get_running_loop()
        began, self.seen.requests = loop.time(), self.seen.requests + 1
        try:
            answer = await http.post(
                next(self._targets).url + path, json=body, headers={"Authorization": f"Bearer {token}"}
            )
        except httpx.TransportError:
            return None
        self.seen.slowest = max(self.seen.slowest, loop.time() - began)
        self.seen.statuses.append(answer.status_code)
        return answer
