"""A person who is erased while writes about them arrive, in one process and in two: nothing of them is left."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

import httpx

from drills.outcome import Outcome, insist
from drills.stage import Process, Stage, staged
from persistence.models import MODELS
from tests.support.audio import mp3_base64

_WEBHOOK = "/api/webhook/elevenlabs"
_ROUNDS_OF_WRITES = 3
_TRACES = ("zebra", "quagga", "1416777")


async def erasure_races(engine: str, repetitions: int, processes: int = 1) -> Outcome:
    """Erase a person `repetitions` times, each time beside a dozen writes of every kind about them.

    Afterwards the whole database, the outbox included, and the recording store are searched for the person's number,
    name and texts. `acknowledged` counts the writes that were answered with success, `lost` the traces found.
    """
    requests = acknowledged = 0
    async with staged(engine) as stage:
        apis = [await stage.api() for _ in range(processes)]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            for number in range(repetitions):
                person = _Person(stage, itertools.cycle(apis), http, number)
                answers = await person.erased_beside_writes()
                failed = [answer.text for answer in answers if answer.status_code >= 500]
                insist(not failed, f"a request failed: {failed[:1]}")
                requests += len(answers)
                acknowledged += sum(answer.is_success for answer in answers)
                await person.erase_all()
        lost = await _traces(stage)
    fault = "erased beside writes" + ("" if processes == 1 else ", two processes")
    return Outcome(fault, engine, repetitions, requests, acknowledged, lost, 0, 0)


async def erasure_races_of_two(engine: str, repetitions: int) -> Outcome:
    """Do the same with two API processes that take turns."""
    return await erasure_races(engine, repetitions, processes=2)


class _Person:
    """One person, the writes about them, and their erasure; requests go to the processes in turn."""

    def __init__(self, stage: Stage, apis: Iterator[Process], http: httpx.AsyncClient, number: int) -> None:
        self._stage = stage
        self._apis = apis
        self._http = http
        self._number = number
        self._phone = f"+1416777{number:04}"

    async def erased_beside_writes(self) -> list[httpx.Response]:
        """Make the person, erase them while everything is written, and return every answer."""
        first = await self._push(f"conv_{self._number}_first", status="no-answer")
        contact_id = first.json()["contactId"]
        writes = [write for turn in range(_ROUNDS_OF_WRITES) for write in self._writes(contact_id, turn)]
        half = len(writes) // 2
        answers = await asyncio.gather(*writes[:half], self._erase(contact_id), *writes[half:])
        return [first, *answers]

    async def erase_all(self) -> None:
        """Erase whoever has the number now: a call that was pushed after the erasure is a new person's."""
        headers = {"Authorization": f"Bearer {self._stage.superadmin_token}"}
        url = f"{next(self._apis).url}/api/contacts"
        found = (await self._http.get(url, params={"search": self._phone}, headers=headers)).json()
        for contact in found["data"]["contacts"]:
            insist((await self._erase(contact["_id"])).status_code == 200, "a person could not be erased afterwards")

    def _writes(self, contact_id: str, turn: int) -> Iterator[Coroutine[Any, Any, httpx.Response]]:
        conversation = f"conv_{self._number}_{turn}"
        tool, person = self._stage.demo.tool_secret.get_secret_value(), self._stage.superadmin_token
        said = {"phone_number": self._phone, "conversation_id": conversation}
        audio = {"conversation_id": f"conv_{self._number}_first", "full_audio": mp3_base64(2)}
        yield self._post(f"{_WEBHOOK}/tools/create-note", said | {"note": f"zebra note {turn}"}, tool)
        yield self._post(f"{_WEBHOOK}/tools/send-sms", said | {"message": f"zebra text {turn}"}, tool)
        yield self._post(_WEBHOOK, {"type": "post_call_audio", "event_timestamp": 1_796_000_000, "data": audio}, tool)
        yield self._push(conversation, recording=mp3_base64(2))
        yield self._post("/api/contact-notes", {"contactId": contact_id, "note": "zebra by hand"}, person)

    async def _push(self, conversation: str, **changes: object) -> httpx.Response:
        call = {
            "direction": "inbound",
            "fromNumber": self._phone,
            "toNumber": "+12362320246",
            "duration": 5,
            "status": "completed",
            "callerName": "Zebra Quagga",
            "summary": "zebra summary",
            "transcript": [{"role": "user", "message": "zebra transcript"}],
            "externalCallId": conversation,
        }
        return await self._post("/api/calls/ingest", call | changes, self._stage.demo.api_key.get_secret_value())

    async def _erase(self, contact_id: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._stage.superadmin_token}"}
        return await self._http.delete(f"{next(self._apis).url}/api/contacts/{contact_id}", headers=headers)

    async def _post(self, path: str, body: dict[str, Any], token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await self._http.post(next(self._apis).url + path, json=body, headers=headers)


async def _traces(stage: Stage) -> int:
    """Search every row of every table and the recording store; return what still tells of any of the persons."""

    def unit() -> list[str]:
        rows = [str(row).lower() for model in MODELS for row in model.select().dicts()]
        return [row for row in rows if any(trace in row for trace in _TRACES)]

    async with stage.relay() as relay:
        rows = await relay.database.read(unit)
    objects = [path for path in (stage.data_dir / "recordings").rglob("*") if path.is_file()]
    insist(not rows, f"{len(rows)} rows tell of a person who was erased: {rows[:1]}")
    insist(not objects, f"{len(objects)} recordings of erased persons are left")
    return len(rows) + len(objects)
