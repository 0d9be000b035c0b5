"""Both engines give the same answer to a text of every length, store the same, and hand it over to each other."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions.copy_database import compare_databases, copy_database, prepare_target
from domain.lengths import LENGTHS
from persistence.database import open_database
from persistence.models import Call, CallContext, Contact, ContactNote, Conversation, Message, TransferRequest
from tests.support import postgresql
from tests.support.api import Api, engine_of_api, running_api
from tests.support.audio import mp3_base64

pytestmark = pytest.mark.postgresql

CALLER, OURS = "+14165550123", "+12362320246"
POST_CALL = "/api/webhook/elevenlabs"
STORED = (Contact, CallContext, Conversation, Call, ContactNote, Message, TransferRequest)
# What differs between any two installations: ids, times, and what is made of them.
OWN = {"id", "organization", "contact", "conversation", "call", "user", "created_at", "updated_at", "last_message_at"}
OWN |= {"started_at", "ended_at", "requested_at", "payload_digests", "provider_message_id"}


@dataclass(frozen=True)
class Text:
    """A text field: how a request with a value of it is made, and the longest value that fits (None for any)."""

    name: str
    limit: int | None
    kind: str

    def value(self, length: int) -> str:
        """Return a value of that many characters, of the field's own kind."""
        if self.kind == "number":
            return "+1" + "2" * (length - 2)
        start = {"conversation": "conv_", "text": ""}[self.kind]
        return start + "é" * (length - len(start))

    @property
    def lengths(self) -> list[int]:
        """The limit and one beyond, or a length that no column has a limit near."""
        return [5_000] if self.limit is None else [self.limit, self.limit + 1]


NUMBER, CONVERSATION = LENGTHS["phoneNumber"], LENGTHS["conversationId"]
INGESTED = [
    Text("externalCallId", LENGTHS["externalCallId"], "text"),
    Text("externalCallId", LENGTHS["externalCallId"], "conversation"),
    Text("metadata.conversation_id", CONVERSATION, "conversation"),
    Text("fromNumber", NUMBER, "number"),
    Text("toNumber", NUMBER, "number"),
    Text("callerName", None, "text"),
    Text("agentName", None, "text"),
    Text("summary", None, "text"),
    Text("extra", None, "text"),
]
TOLD = [
    ("create-note", Text("note", None, "text")),
    ("create-note", Text("phone_number", NUMBER, "number")),
    ("create-note", Text("conversation_id", CONVERSATION, "text")),
    ("send-sms", Text("message", 1600, "text")),
    ("send-sms", Text("called_id", NUMBER, "number")),
    ("send-sms", Text("called_number", NUMBER, "number")),
    ("send-sms", Text("conversation_id", CONVERSATION, "text")),
    ("transfer", Text("reason", None, "text")),
    ("transfer", Text("called_id", NUMBER, "number")),
    ("transfer", Text("conversation_id", CONVERSATION, "text")),
    ("update-contact", Text("first_name", LENGTHS["firstName"], "text")),
    ("update-contact", Text("last_name", LENGTHS["lastName"], "text")),
    ("update-contact", Text("conversation_id", CONVERSATION, "text")),
]
CONNECTED = [
    Text("conversation_id", CONVERSATION, "text"),
    Text("caller_id", NUMBER, "number"),
    Text("called_id", NUMBER, "number"),
    Text("agent_id", LENGTHS["vendorId"], "text"),
]
REPORTED = [Text("conversation_id", CONVERSATION, "conversation"), Text("called", NUMBER, "number")]


async def ingest(api: Api, text: Text, length: int) -> httpx.Response:
    body: dict[str, Any] = {
        "direction": "inbound",
        "fromNumber": CALLER,
        "toNumber": OURS,
        "duration": 5,
        "status": "completed",
        "transcript": [{"role": "user", "message": "x"}],
        "summary": "x",
        "recording": mp3_base64(1),
        "externalCallId": f"{text.name} {text.kind} {length}",
    }
    value = text.value(length)
    body |= {"metadata": {"conversation_id": value}} if "." in text.name else {text.name: value}
    return await api.ingest(body)


async def tell(api: Api, tool: str, text: Text, length: int) -> httpx.Response:
    body = {"phone_number": CALLER, "note": f"{text.name} {length}", "message": f"{text.name} {length}"}
    body |= {"last_name": "Quux"} if tool == "update-contact" else {}
    return await api.tool(tool, body | {text.name: text.value(length)})


async def connect(api: Api, text: Text, length: int) -> httpx.Response:
    body = {"conversation_id": f"{text.name} {length}", "caller_id": CALLER} | {text.name: text.value(length)}
    return await api.post(f"{POST_CALL}/personalization", body, api.demo.tool_secret.get_secret_value())


async def report(api: Api, text: Text, length: int) -> httpx.Response:
    phone = {"direction": "inbound", "agent_number": OURS, "external_number": CALLER, "type": "sip_trunking"}
    value = text.value(length)
    phone |= {"agent_number": value} if text.name == "called" else {}
    data = {
        "conversation_id": value if text.name == "conversation_id" else f"conv_called_{length}",
        "agent_id": "agent_1",
        "status": "done",
        "transcript": [],
        "metadata": {"start_time_unix_secs": 1_796_000_000, "call_duration_secs": 5, "phone_call": phone},
    }
    document = {"type": "post_call_transcription", "event_timestamp": 1_796_000_005, "data": data}
    return await api.post(POST_CALL, document, api.demo.tool_secret.get_secret_value())


async def send_everything(api: Api) -> dict[str, tuple[int, Any]]:
    """Send every text at each of its lengths; return each answer's status and what it says."""
    answers = {}
    for text in INGESTED:
        for length in text.lengths:
            answers[f"ingest {text} {length}"] = _told(await ingest(api, text, length))
    for tool, text in TOLD:
        for length in text.lengths:
            answers[f"{tool} {text} {length}"] = _told(await tell(api, tool, text, length))
    for text in CONNECTED:
        for length in text.lengths:
            answers[f"connect {text} {length}"] = _told(await connect(api, text, length))
    for text in REPORTED:
        for length in text.lengths:
            answers[f"report {text} {length}"] = _told(await report(api, text, length))
    return answers


def _told(response: httpx.Response) -> tuple[int, Any]:
    said = response.json()
    return response.status_code, {name: value for name, value in said.items() if not name.lower().endswith("id")}


def _stored() -> list[Any]:
    rows: list[dict[str, Any]] = [
        row for model in STORED for row in model.select().order_by(model.id).dicts().execute()
    ]
    return [{name: value for name, value in row.items() if name not in OWN} for row in rows]


@contextlib.asynccontextmanager
async def on(engine: str, folder: Path) -> AsyncIterator[Api]:
    before = engine_of_api.set(engine)
    try:
        async with running_api(folder) as api:
            yield api
    finally:
        engine_of_api.reset(before)


async def test_texts_at_their_limit_and_beyond_are_the_same_on_both_engines(tmp_path: Path) -> None:
    """Never a 500, the same answers, the same rows; and what SQLite holds arrives on PostgreSQL."""
    async with on("sqlite", tmp_path / "a") as embedded, on("postgresql", tmp_path / "b") as served:
        answers, others = await send_everything(embedded), await send_everything(served)
        rows, other_rows = await embedded.read(_stored), await served.read(_stored)
        url = postgresql.create()
        target = open_database(url)
        try:
            await prepare_target(embedded.relay.database, target)
            async for _ in copy_database(embedded.relay.database, target):
                pass
            compared = await compare_databases(embedded.relay.database, target)
        finally:
            target.close()
            postgresql.drop(url)

    assert answers == others
    assert [name for name, (status, _) in answers.items() if status >= 500] == []
    assert rows == other_rows
    assert [table.table for table in compared if not table.is_equal] == []
    assert {status for status, _ in answers.values()} == {200, 201, 400}


@pytest.mark.parametrize("length", [LENGTHS["conversationId"], LENGTHS["conversationId"] + 1])
async def test_no_column_of_sqlite_holds_more_than_the_same_column_of_postgresql(tmp_path: Path, length: int) -> None:
    """Whatever writes past the checks in front is refused by either engine."""
    outcomes = []
    for engine in ("sqlite", "postgresql"):
        async with on(engine, tmp_path / engine) as api:
            await ingest(api, Text("summary", None, "text"), 5)

            def unit(text: str = "x" * length) -> None:
                Call.update(elevenlabs_conversation_id=text).execute()

            try:
                await api.relay.database.write(unit)
                outcomes.append("stored")
            except Exception as error:
                outcomes.append("refused" if "too long" in str(error) else repr(error))

    assert outcomes == ["stored" if length == LENGTHS["conversationId"] else "refused"] * 2
