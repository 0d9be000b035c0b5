"""The floor: bare Starlette, hand-written SQL on sqlite3, group commit. Nothing is validated; every promise is kept."""

import asyncio
import hashlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.questions import CREATE_NOTE
from domain.errors import InvalidRequest
from domain.identifiers import new_id
from domain.phones import to_e164
from domain.times import later, now

_CONTACT = "SELECT id FROM contact WHERE organization_id = ? AND phone_number = ?"
_SECRET = """SELECT organization_id FROM tool_secret WHERE digest = ? AND (expires_at IS NULL OR expires_at > ?)"""
_REGION = "SELECT default_region FROM organization WHERE id = ?"
_CLAIM = """INSERT INTO tool_invocation (id, organization_id, tool, fingerprint, result_id, invoked_at)
    VALUES (?, ?, 'create-note', ?, ?, ?) ON CONFLICT (organization_id, fingerprint)
    DO UPDATE SET invoked_at = excluded.invoked_at, result_id = excluded.result_id WHERE invoked_at <= ?"""
_RESULT = "SELECT result_id FROM tool_invocation WHERE organization_id = ? AND fingerprint = ?"
_NOTE = """INSERT INTO contact_note (id, organization_id, contact_id, type, note, source_tool,
    elevenlabs_conversation_id, created_at, mentions, attachments, reactions, is_edited)
    VALUES (?, ?, ?, 'ai_summary', ?, 'create-note', ?, ?, '[]', '[]', '[]', FALSE)"""
_SEQUENCE = "UPDATE organization SET event_sequence = event_sequence + 1 WHERE id = ? RETURNING event_sequence"
_EVENT = """INSERT INTO event (organization_id, sequence, name, at, contact_id, data)
    VALUES (?, ?, 'note_created', ?, ?, ?)"""


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["BENCH_DATABASE"], isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = 1", "cache_size = -16000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Writer:
    """One thread that commits whatever has gathered, in one transaction."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def write(self, unit: Callable[[sqlite3.Connection], Any]) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._jobs.put((unit, future, loop))
        return await future

    def _run(self) -> None:
        connection = _connect()
        while True:
            batch = [self._jobs.get()]
            while len(batch) < 128 and not self._jobs.empty():
                batch.append(self._jobs.get())
            connection.execute("BEGIN IMMEDIATE")
            results = [unit(connection) for unit, _, _ in batch]
            connection.execute("COMMIT")
            for (_, future, loop), result in zip(batch, results, strict=True):
                loop.call_soon_threadsafe(future.set_result, result)


def build() -> Starlette:
    reader, writer = _connect(), Writer()

    def organization(request: Request) -> str | None:
        digest = hashlib.sha256(request.headers.get("authorization", "")[7:].encode()).hexdigest()
        row = reader.execute(_SECRET, (digest, now())).fetchone()
        return row[0] if row else None

    async def create_note(request: Request) -> Response:
        organization_id = organization(request)
        if organization_id is None:
            return _answer(401, success=False, error="Unauthorized")
        body = orjson.loads(await request.body())
        text, conversation = str(body.get("note", "")).strip(), body.get("conversation_id")
        if not text:
            return _answer(200, success=False, error="The note is empty, so nothing was saved.")

        def unit(connection: sqlite3.Connection) -> str | None:
            return _save(connection, organization_id, str(body.get("phone_number")), text, conversation)

        note_id = await writer.write(unit)
        if note_id is None:
            return _answer(
                200, success=False, error="No contact with that phone number was found, so the note was not saved."
            )
        return _answer(200, success=True, note_id=note_id)

    return Starlette(routes=[Route(CREATE_NOTE, create_note, methods=["POST"])])


def _save(
    connection: sqlite3.Connection, organization_id: str, phone: str, text: str, conversation: str | None
) -> str | None:
    (region,) = connection.execute(_REGION, (organization_id,)).fetchone()
    try:
        number = to_e164(phone, region)
    except InvalidRequest:
        return None
    contact = connection.execute(_CONTACT, (organization_id, number)).fetchone()
    if contact is None:
        return None
    fingerprint = hashlib.sha256(orjson.dumps(["create-note", conversation, number, text])).hexdigest()
    note_id, at = new_id(), now()
    claimed = connection.execute(_CLAIM, (new_id(), organization_id, fingerprint, note_id, at, later(-30))).rowcount
    if not claimed:
        return str(connection.execute(_RESULT, (organization_id, fingerprint)).fetchone()[0])
    connection.execute(_NOTE, (note_id, organization_id, contact[0], text, conversation, at))
    (sequence,) = connection.execute(_SEQUENCE, (organization_id,)).fetchone()
    source = {"tool": "create-note", "conversationId": conversation} if conversation else {"tool": "create-note"}
    data = {"noteId": note_id, "contactId": contact[0], "type": "ai_summary", "note": text, "createdAt": at}
    data["source"] = source
    connection.execute(_EVENT, (organization_id, sequence, at, contact[0], orjson.dumps(data).decode()))
    return note_id


def _answer(status: int, **body: Any) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
