"""A person who is erased while writes about them arrive, in one process and in two: nothing of them is left.

The search reads more than the models do: every table as the server prints it, or every byte of the data folder, where
SQLite may keep what a row held before; and every line that the processes logged.
"""

import asyncio
import itertools
import signal
from collections.abc import Coroutine, Iterator
from typing import Any

import httpx
import psycopg
from psycopg import sql

from drills.outcome import Outcome, insist
from drills.stage import Process, Stage, staged
from persistence.models import MODELS
from tests.support.audio import mp3_base64

_WEBHOOK = "/api/webhook/elevenlabs"
_OURS = "+12362320246"
_ROUNDS_OF_WRITES = 3
_TRACES = ("zebra", "quagga", "1416777")


async def erasure_races(engine: str, repetitions: int, processes: int = 1) -> Outcome:
    """Erase a person `repetitions` times, each time beside 27 writes of every kind about them.

    Afterwards the whole database, the outbox included, the recording store and the logs are searched for the person's
    number, name and texts. `acknowledged` counts the requests that were answered with success.
    """
    requests = acknowledged = 0
    async with staged(engine) as stage:
        apis = [await stage.api() for _ in range(processes)]
        # The server closes a connection that was idle for five seconds; the client has to let go of it before.
        async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(keepalive_expiry=1)) as http:
            for number in range(repetitions):
                person = _Person(stage, itertools.cycle(apis), http, number)
                answers = await person.erased_beside_writes()
                failed = [answer.text for answer in answers if answer.status_code >= 500]
                insist(not failed, f"a request failed: {failed[:1]}")
                requests += len(answers)
                acknowledged += sum(answer.is_success for answer in answers)
                await person.erase_all()
        for api in apis:
            api.send(signal.SIGTERM)
            insist(await api.ended() == 0, "a process did not end well")
        await _insist_on_no_trace(stage)
    fault = "erased beside writes" + ("" if processes == 1 else ", two processes")
    return Outcome(fault, engine, repetitions, requests, acknowledged, 0, 0, 0)


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
        """Erase whoever has the number now: a call that was pushed after the erasure is a new person's.

        A last call makes sure that somebody has it, so that what was kept of a call that had just connected goes too.
        """
        await self._push(f"conv_{self._number}_last", status="no-answer")
        headers = {"Authorization": f"Bearer {self._stage.superadmin_token}"}
        url = f"{next(self._apis).url}/api/contacts"
        found = (await self._http.get(url, params={"search": self._phone}, headers=headers)).json()
        for contact in found["data"]["contacts"]:
            insist((await self._erase(contact["_id"])).status_code == 200, "a person could not be erased afterwards")

    def _writes(self, contact_id: str, turn: int) -> Iterator[Coroutine[Any, Any, httpx.Response]]:
        conversation = f"conv_{self._number}_{turn}"
        tool, person = self._stage.demo.tool_secret.get_secret_value(), self._stage.superadmin_token
        said = {"phone_number": self._phone, "conversation_id": conversation}
        connected = {"caller_id": self._phone, "called_id": _OURS}
        audio = {"conversation_id": f"conv_{self._number}_first", "full_audio": mp3_base64(2)}
        yield self._post(f"{_WEBHOOK}/tools/create-note", said | {"note": f"zebra note {turn}"}, tool)
        yield self._post(f"{_WEBHOOK}/tools/send-sms", said | {"message": f"zebra text {turn}"}, tool)
        yield self._post(_WEBHOOK, {"type": "post_call_audio", "event_timestamp": 1_796_000_000, "data": audio}, tool)
        yield self._push(conversation, recording=mp3_base64(2))
        yield self._post(f"{_WEBHOOK}/tools/transfer", {"conversation_id": conversation, "reason": "zebra wish"}, tool)
        yield self._post(_WEBHOOK, self._report(conversation), tool)
        yield self._post(f"{_WEBHOOK}/personalization", {**connected, "conversation_id": conversation}, tool)
        yield self._post(f"{_WEBHOOK}/tools/update-contact", said | {"email": f"zebra{turn}@example.com"}, tool)
        yield self._post("/api/contact-notes", {"contactId": contact_id, "note": "zebra by hand"}, person)

    def _report(self, conversation: str) -> dict[str, Any]:
        phone = {"direction": "inbound", "agent_number": _OURS, "external_number": self._phone, "type": "sip_trunking"}
        call = {
            "conversation_id": conversation,
            "agent_id": "agent_1",
            "status": "done",
            "transcript": [{"role": "user", "message": "zebra reported"}],
            "metadata": {"start_time_unix_secs": 1_796_000_000, "call_duration_secs": 5, "phone_call": phone},
            "analysis": {"transcript_summary": "zebra analysis", "call_successful": "success"},
        }
        return {"type": "post_call_transcription", "event_timestamp": 1_796_000_005, "data": call}

    async def _push(self, conversation: str, **changes: object) -> httpx.Response:
        call = {
            "direction": "inbound",
            "fromNumber": self._phone,
            "toNumber": _OURS,
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


async def _insist_on_no_trace(stage: Stage) -> None:
    async with stage.relay() as relay:
        rows = [row for row in await relay.database.read(_rows) if _tells(row)]
        await relay.database.scrub()
    rows += await _printed(stage) if stage.engine == "postgresql" else []
    insist(not rows, f"{len(rows)} rows tell of a person who was erased: {rows[:1]}")
    objects = [path for path in (stage.data_dir / "recordings").rglob("*") if path.is_file()]
    insist(not objects, f"{len(objects)} recordings of erased persons are left")
    files = [path for path in stage.data_dir.rglob("*") if path.is_file()]
    telling = [path.name for path in files if _tells(path.read_bytes().decode(errors="replace"))]
    insist(not telling, f"files hold what tells of a person who was erased: {telling}")
    lines = [line for line in stage.logs().splitlines() if _tells(line)]
    insist(not lines, f"{len(lines)} lines of the logs tell of a person: {lines[:1]}")


def _rows() -> list[str]:
    return [str(row) for model in MODELS for row in model.select().dicts()]


async def _printed(stage: Stage) -> list[str]:
    """Return the rows of any table, known to the models or not, that tell of a person."""
    async with await psycopg.AsyncConnection.connect(stage.settings.resolved_database_url) as connection:
        tables = await (await connection.execute(_TABLES)).fetchall()
        found = []
        for (table,) in tables:
            printed = await connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            found += [row for (row,) in await printed.fetchall() if _tells(row)]
    return found


_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"


def _tells(text: str) -> bool:
    return any(trace in text.lower() for trace in _TRACES)
