"""The peers do the same work: the same requests, then every answer and every row written compared with ours.

Ids and moments are given names in the order in which they first appear, so that they can differ and still have to be
used alike. The words of a validation error belong to each tool and are not compared; its status and `success` are.
"""

import base64
import re
import sqlite3
from typing import Any

import httpx
import orjson

from bench.questions import CONTACT, CREATE_NOTE, INGEST, OURS, audio
from bench.servers import Installation, Server

_ID = re.compile(r"\b[0-9a-f]{24}\b")
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")

_NOTE_TABLES = {
    "contact_note": "contact_id, type, note, source_tool, elevenlabs_conversation_id, mentions, attachments",
    "tool_invocation": "tool, length(fingerprint), result_id",
    "event": "sequence, name, contact_id, conversation_id, data",
    "organization": "event_sequence",
}
_CALL_TABLES = {
    "contact": "id, phone_number, name, name_is_placeholder, search",
    "conversation": "id, contact_id, channel_type, channel_identifier, last_message_at",
    "call": """id, contact_id, conversation_id, external_call_id, source, direction, from_number, to_number, status,
        duration, started_at, ended_at, summary, transcript, agent_name, caller_name, provider_metadata,
        payload_digests""",
    "recording": "call_id, key, content_type, size, sha256",
    "event": "sequence, name, contact_id, conversation_id, data",
    "organization": "event_sequence",
}

Transcript = list[Any]


class Different(Exception):
    """Raised when a peer answers or writes something else than we do."""


def compare_notes(ours: Server, peers: list[Server]) -> int:
    """Compare create-note; return how many exchanges and rows were alike."""
    return _compare(ours, peers, CREATE_NOTE, _notes(), ours.installation.tool_secret, _NOTE_TABLES)


def compare_calls(ours: Server, peers: list[Server]) -> int:
    """Compare ingest; return how many exchanges and rows were alike."""
    return _compare(ours, peers, INGEST, _calls(), ours.installation.api_key, _CALL_TABLES)


def _notes() -> list[tuple[Any, bool]]:
    good = {"phone_number": CONTACT, "note": "  Wants a callback — soon.  ", "conversation_id": "conv_1"}
    return [
        (good, True),
        (good, True),
        ({"phone_number": CONTACT, "note": "Without a conversation"}, True),
        ({"phone_number": "(416) 555-0100", "note": "A national number"}, True),
        ({"phone_number": "+14165550177", "note": "Nobody has this number"}, True),
        ({"phone_number": CONTACT, "note": "   "}, True),
        ({"phone_number": CONTACT}, True),
        ({"phone_number": 7, "note": "Not a number as text"}, True),
        (good, False),
    ]


def _calls() -> list[tuple[Any, bool]]:
    first = {
        "direction": "inbound", "fromNumber": CONTACT, "toNumber": OURS, "duration": 61.5, "status": "no-answer",
        "externalCallId": "x-1", "summary": "Nobody picked up", "metadata": {"b": 1, "a": [True, None]},
        "callStartTime": "2026-05-15T09:10:00.000Z", "agentName": "Front desk",
    }  # fmt: skip
    recorded = first | {
        "externalCallId": "x-2", "direction": "outbound", "fromNumber": OURS, "toNumber": "+14165550123",
        "status": "completed", "transcript": [{"role": "user", "message": "Hello", "timestamp": 0.5}],
        "recording": base64.b64encode(audio(10_000)).decode(), "callerName": "Sam Example",
    }  # fmt: skip
    return [
        (first, True),
        (first, True),
        (first | {"summary": "Something else"}, True),
        (recorded, True),
        (recorded, True),
        (recorded | {"externalCallId": "x-3", "recording": "not base64!"}, True),
        (first | {"externalCallId": "x-4", "direction": "sideways"}, True),
        (first | {"externalCallId": "x-5", "duration": -1}, True),
        (first | {"externalCallId": "x-6", "status": "completed"}, True),
        (first, False),
    ]


def _compare(
    ours: Server, peers: list[Server], path: str, bodies: list[tuple[Any, bool]], token: str, tables: dict[str, str]
) -> int:
    expected = _transcript(ours, path, bodies, token, tables)
    for peer in peers:
        found = _transcript(peer, path, bodies, token, tables)
        for one, other in zip(expected, found, strict=False):
            if one != other:
                raise Different(f"{peer.name} differs from us:\n  ours   {one}\n  theirs {other}")
        if len(expected) != len(found):
            raise Different(f"{peer.name} wrote {len(found)} rows and answers, we {len(expected)}")
    return len(expected)


def _transcript(
    server: Server, path: str, bodies: list[tuple[Any, bool]], token: str, tables: dict[str, str]
) -> Transcript:
    names: dict[str, str] = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
        answers = [_answer(http, path, body, token if known else "wrong", names) for body, known in bodies]
    return answers + [_named(row, names) for row in _rows(server.installation, tables)]


def _answer(http: httpx.Client, path: str, body: Any, token: str, names: dict[str, str]) -> Any:
    response = http.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    answer = response.json()
    if answer.get("success") is not True:
        return response.status_code, answer.get("success")
    return response.status_code, _named(answer, names)


def _rows(installation: Installation, tables: dict[str, str]) -> list[Any]:
    rows: list[Any] = []
    for table, columns in tables.items():
        statement = f'SELECT {columns} FROM "{table}" ORDER BY id'  # noqa: S608 - the names are ours
        rows += [[table, *map(_parsed, row)] for row in _query(installation, statement)]
    return rows


def _query(installation: Installation, statement: str) -> list[Any]:
    if installation.is_embedded:
        connection = sqlite3.connect(installation.database)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()
    import psycopg

    with psycopg.connect(installation.database) as server:
        return server.execute(statement).fetchall()


def _parsed(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


def _named(value: Any, names: dict[str, str]) -> Any:
    text = orjson.dumps(value).decode()
    for kind, pattern in (("id", _ID), ("digest", _DIGEST), ("moment", _MOMENT)):
        text = pattern.sub(lambda found, kind=kind: names.setdefault(found[0], f"{kind} {len(names)}"), text)  # type: ignore[misc]
    return orjson.loads(text)
