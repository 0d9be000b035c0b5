"""FastAPI and SQLAlchemy 2, as somebody who knows both would write it: models both ways, sessions, one write lock.

Endpoints are plain functions, which FastAPI runs in threads, because the sessions block. On SQLite transactions begin
IMMEDIATE and take turns by a lock of the process: without it threads would poll the file and starve each other.
"""

import base64
import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator
from sqlalchemy import Engine, ForeignKey, create_engine, event, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from bench.questions import CREATE_NOTE, INGEST
from domain.errors import InvalidRequest
from domain.identifiers import new_id
from domain.phones import to_e164
from domain.times import later, now, to_wire

# Tables


class Base(DeclarativeBase):
    pass


class Organization(Base):
    __tablename__ = "organization"
    id: Mapped[str] = mapped_column(primary_key=True)
    default_region: Mapped[str | None]
    event_sequence: Mapped[int]


class ToolSecret(Base):
    __tablename__ = "tool_secret"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organization.id"))
    digest: Mapped[str]
    expires_at: Mapped[str | None]


class ApiKey(Base):
    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    digest: Mapped[str]


class Contact(Base):
    __tablename__ = "contact"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    phone_number: Mapped[str]
    name: Mapped[str]
    name_is_placeholder: Mapped[bool]
    search: Mapped[str]
    created_at: Mapped[str] = mapped_column(default=now)
    updated_at: Mapped[str] = mapped_column(default=now)


class Conversation(Base):
    __tablename__ = "conversation"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    contact_id: Mapped[str]
    channel_type: Mapped[str]
    channel_identifier: Mapped[str]
    last_message_at: Mapped[str | None]
    created_at: Mapped[str] = mapped_column(default=now)


class Call(Base):
    __tablename__ = "call"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    contact_id: Mapped[str]
    conversation_id: Mapped[str]
    external_call_id: Mapped[str | None]
    source: Mapped[str] = mapped_column(default="ingest")
    direction: Mapped[str]
    from_number: Mapped[str]
    to_number: Mapped[str]
    status: Mapped[str]
    duration: Mapped[float]
    started_at: Mapped[str]
    ended_at: Mapped[str]
    summary: Mapped[str | None]
    transcript: Mapped[str | None]
    agent_name: Mapped[str | None]
    caller_name: Mapped[str | None]
    provider_metadata: Mapped[str]
    payload_digests: Mapped[str]
    created_at: Mapped[str] = mapped_column(default=now)


class Recording(Base):
    __tablename__ = "recording"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    call_id: Mapped[str]
    key: Mapped[str]
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[str] = mapped_column(default=now)


class ContactNote(Base):
    __tablename__ = "contact_note"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    contact_id: Mapped[str]
    type: Mapped[str]
    note: Mapped[str]
    source_tool: Mapped[str | None]
    elevenlabs_conversation_id: Mapped[str | None]
    mentions: Mapped[str] = mapped_column(default="[]")
    attachments: Mapped[str] = mapped_column(default="[]")
    reactions: Mapped[str] = mapped_column(default="[]")
    is_edited: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[str] = mapped_column(default=now)


class ToolInvocation(Base):
    __tablename__ = "tool_invocation"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    tool: Mapped[str]
    fingerprint: Mapped[str]
    result_id: Mapped[str]
    invoked_at: Mapped[str]


class TransferRequest(Base):
    __tablename__ = "transfer_request"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[str]
    contact_id: Mapped[str | None]
    call_id: Mapped[str | None]
    elevenlabs_conversation_id: Mapped[str | None]


class Event(Base):
    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    sequence: Mapped[int]
    name: Mapped[str]
    at: Mapped[str]
    contact_id: Mapped[str | None]
    conversation_id: Mapped[str | None]
    data: Mapped[str]


# Bodies


class NoteIn(BaseModel):
    model_config = ConfigDict(extra="allow")

    phone_number: str
    note: str
    called_id: str | None = None
    called_number: str | None = None


class NoteOut(BaseModel):
    success: bool
    note_id: str | None = None
    error: str | None = None


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["agent", "user"]
    message: str
    timestamp: float | None = None


class CallIn(BaseModel):
    model_config = ConfigDict(extra="allow")

    direction: Literal["inbound", "outbound"]
    fromNumber: str = Field(pattern=r"^\+[1-9]\d{1,14}$")  # noqa: N815
    toNumber: str = Field(pattern=r"^\+[1-9]\d{1,14}$")  # noqa: N815
    duration: float = Field(ge=0)
    status: Literal["completed", "no-answer", "busy", "failed"]
    transcript: list[Turn] | None = None
    summary: str | None = None
    recording: str | None = None
    externalCallId: str | None = None  # noqa: N815
    agentName: str | None = None  # noqa: N815
    callerName: str | None = None  # noqa: N815
    callStartTime: datetime | None = None  # noqa: N815
    metadata: dict[str, Any] | None = None

    @field_serializer("callStartTime", when_used="json")
    def _wire(self, moment: datetime | None) -> str | None:
        return to_wire(moment) if moment else None

    @model_validator(mode="after")
    def _complete(self) -> "CallIn":
        if self.status == "completed" and None in (self.transcript, self.summary, self.recording):
            raise ValueError("transcript, summary and recording are required")
        return self


class CallOut(BaseModel):
    success: bool
    callId: str  # noqa: N815
    contactId: str | None = None  # noqa: N815
    conversationId: str | None = None  # noqa: N815
    deduplicated: bool | None = None
    payloadMatches: bool | None = None  # noqa: N815
    differingFields: list[str] | None = None  # noqa: N815


# Sessions


def _engine(*, immediate: bool) -> Engine:
    url = os.environ["BENCH_DATABASE"]
    if url.startswith("postgresql"):
        return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), pool_size=8, max_overflow=0)
    engine = create_engine(f"sqlite:///{url}", pool_size=40)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = 1", "cache_size = -16000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


reading = sessionmaker(_engine(immediate=False), expire_on_commit=False)
writing = sessionmaker(_engine(immediate=True), expire_on_commit=False)
_is_sqlite = not os.environ["BENCH_DATABASE"].startswith("postgresql")
_lock: contextlib.AbstractContextManager[Any] = threading.Lock() if _is_sqlite else contextlib.nullcontext()
_insert: Any = sqlite.insert if _is_sqlite else postgresql.insert


@contextlib.contextmanager
def transaction() -> Iterator[Session]:
    with _lock, writing.begin() as session:
        yield session


# Who is asking

bearer = HTTPBearer(auto_error=False)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def _digest(bearer: HTTPAuthorizationCredentials | None) -> str:
    if bearer is None:
        raise HTTPException(401)
    return hashlib.sha256(bearer.credentials.encode()).hexdigest()


def by_tool_secret(bearer: Bearer) -> str:
    digest, secret = _digest(bearer), ToolSecret
    lives = or_(secret.expires_at.is_(None), secret.expires_at > now())
    with reading() as session:
        found = session.scalar(select(secret.organization_id).where(secret.digest == digest, lives))
    if found is None:
        raise HTTPException(401)
    return found


def by_api_key(bearer: Bearer) -> str:
    with reading() as session:
        found = session.scalar(select(ApiKey.organization_id).where(ApiKey.digest == _digest(bearer)))
    if found is None:
        raise HTTPException(401)
    return found


# Events


def append(session: Session, organization_id: str, events: list[dict[str, Any]]) -> None:
    head = session.scalar(
        update(Organization)
        .where(Organization.id == organization_id)
        .values(event_sequence=Organization.event_sequence + len(events))
        .returning(Organization.event_sequence)
    )
    assert head is not None
    first, at = head - len(events) + 1, now()
    session.add_all(
        Event(organization_id=organization_id, sequence=first + index, at=at, **one) for index, one in enumerate(events)
    )


# Operations

app = FastAPI()


@app.exception_handler(RequestValidationError)
async def invalid(request: Request, _: RequestValidationError) -> Response:
    is_tool = request.url.path == CREATE_NOTE
    return Response(orjson.dumps({"success": False, "error": "Invalid"}), 200 if is_tool else 400)


@app.exception_handler(HTTPException)
async def refused(_: Request, error: HTTPException) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status_code == 401 else None
    return Response(orjson.dumps({"success": False, "error": error.detail}), error.status_code, headers)


@app.post(CREATE_NOTE, response_model=NoteOut, response_model_exclude_unset=True)
def create_note(body: NoteIn, organization_id: Annotated[str, Depends(by_tool_secret)]) -> NoteOut:
    text = body.note.strip()
    if not text:
        return NoteOut(success=False, error="The note is empty, so nothing was saved.")
    conversation = (body.model_extra or {}).get("conversation_id")
    with transaction() as session:
        note_id = _save_note(session, organization_id, body.phone_number, text, conversation)
    if note_id is None:
        return NoteOut(success=False, error="No contact with that phone number was found, so the note was not saved.")
    return NoteOut(success=True, note_id=note_id)


def _save_note(session: Session, organization_id: str, phone: str, text: str, conversation: str | None) -> str | None:
    region = session.scalar(select(Organization.default_region).where(Organization.id == organization_id))
    try:
        number = to_e164(phone, region)
    except InvalidRequest:
        return None
    contact_id = session.scalar(
        select(Contact.id).where(Contact.organization_id == organization_id, Contact.phone_number == number)
    )
    if contact_id is None:
        return None
    fingerprint = hashlib.sha256(orjson.dumps(["create-note", conversation, number, text])).hexdigest()
    note = ContactNote(
        id=new_id(), organization_id=organization_id, contact_id=contact_id, type="ai_summary", note=text,
        source_tool="create-note", elevenlabs_conversation_id=conversation, created_at=now(),
    )  # fmt: skip
    claim = _insert(ToolInvocation).values(
        id=new_id(), organization_id=organization_id, tool="create-note", fingerprint=fingerprint,
        result_id=note.id, invoked_at=note.created_at,
    )  # fmt: skip
    claim = claim.on_conflict_do_update(
        index_elements=["organization_id", "fingerprint"],
        set_={"invoked_at": claim.excluded.invoked_at, "result_id": claim.excluded.result_id},
        where=ToolInvocation.invoked_at <= later(-30),
    )
    if session.scalar(claim.returning(ToolInvocation.id)) is None:
        mine = (ToolInvocation.organization_id == organization_id) & (ToolInvocation.fingerprint == fingerprint)
        return session.scalar(select(ToolInvocation.result_id).where(mine))
    session.add(note)
    source = {"tool": "create-note", "conversationId": conversation} if conversation else {"tool": "create-note"}
    data = {
        "noteId": note.id, "contactId": contact_id, "type": "ai_summary", "note": text, "createdAt": note.created_at,
        "source": source,
    }  # fmt: skip
    created = {"name": "note_created", "contact_id": contact_id, "data": orjson.dumps(data).decode()}
    append(session, organization_id, [created])
    return note.id


@app.post(INGEST, response_model=CallOut, response_model_exclude_unset=True, status_code=201)
def ingest(body: CallIn, response: Response, organization_id: Annotated[str, Depends(by_api_key)]) -> CallOut:
    payload = body.model_dump(mode="json", exclude_unset=True)
    digests = {name: _hash(value) for name, value in payload.items()}
    known = _known(organization_id, body.externalCallId)
    if known is not None:
        return _repeat(known, digests, response)
    call_id = new_id()
    stored = _store(organization_id, call_id, body.recording) if body.recording else None
    with transaction() as session:
        return _record(session, organization_id, call_id, body, payload, digests, stored)


def _known(organization_id: str, external_id: str | None) -> Call | None:
    if not external_id:
        return None
    with reading() as session:
        return session.scalar(
            select(Call).where(Call.organization_id == organization_id, Call.external_call_id == external_id)
        )


def _repeat(known: Call, digests: dict[str, str], response: Response) -> CallOut:
    before = orjson.loads(known.payload_digests)
    differing = sorted(name for name in before.keys() | digests.keys() if before.get(name) != digests.get(name))
    response.status_code = 200
    answer = CallOut(success=True, deduplicated=True, callId=known.id, payloadMatches=not differing)
    if differing:
        answer.differingFields = differing
    return answer


def _hash(value: Any) -> str:
    raw = value.encode() if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(raw).hexdigest()[:32]


def _store(organization_id: str, call_id: str, recording: str) -> Recording:
    try:
        audio = base64.b64decode(recording, validate=True)
    except ValueError:
        raise HTTPException(400) from None
    if audio[:3] != b"ID3" and audio[:2] != b"\xff\xfb":
        raise HTTPException(400)
    key = f"org/{organization_id}/calls/{call_id}/recording.mp3"
    path = Path(os.environ["BENCH_RECORDINGS"], key)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    with draft.open("xb") as file:
        file.write(audio)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    for folder in [*path.parents][:4]:
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return Recording(
        organization_id=organization_id, call_id=call_id, key=key, content_type="audio/mpeg", size=len(audio),
        sha256=hashlib.sha256(audio).hexdigest(),
    )  # fmt: skip


def _record(
    session: Session,
    organization_id: str,
    call_id: str,
    body: CallIn,
    payload: dict[str, Any],
    digests: dict[str, str],
    stored: Recording | None,
) -> CallOut:
    far, ours = (body.fromNumber, body.toNumber) if body.direction == "inbound" else (body.toNumber, body.fromNumber)
    contact = _contact(session, organization_id, to_e164(far), body.callerName)
    conversation = _conversation(session, organization_id, contact.id, to_e164(ours))
    started = body.callStartTime
    started_at = to_wire(started) if started else now()
    ended_at = to_wire(datetime.fromisoformat(started_at) + timedelta(seconds=body.duration))
    extra = {
        name: value for name, value in {"metadata": body.metadata, "additional": body.model_extra}.items() if value
    }
    session.add(
        Call(
            id=call_id,
            organization_id=organization_id,
            contact_id=contact.id,
            conversation_id=conversation.id,
            external_call_id=body.externalCallId,
            direction=body.direction,
            from_number=to_e164(body.fromNumber),
            to_number=to_e164(body.toNumber),
            status=body.status,
            duration=body.duration,
            started_at=started_at,
            ended_at=ended_at,
            summary=body.summary,
            agent_name=body.agentName,
            caller_name=body.callerName,
            transcript=orjson.dumps(payload["transcript"]).decode() if body.transcript is not None else None,
            provider_metadata=orjson.dumps(extra).decode(),
            payload_digests=orjson.dumps(digests).decode(),
        )
    )
    session.flush()
    if stored is not None:
        session.add(stored)
    conversation.last_message_at = ended_at
    append(session, organization_id, _events(call_id, contact.id, conversation.id, body, started_at, ended_at, stored))
    return CallOut(success=True, callId=call_id, contactId=contact.id, conversationId=conversation.id)


def _contact(session: Session, organization_id: str, number: str, name: str | None) -> Contact:
    by_number = select(Contact).where(Contact.organization_id == organization_id, Contact.phone_number == number)
    contact = session.scalar(by_number)
    if contact is None:
        shown = name or "Unknown Caller"
        values = {
            "id": new_id(), "organization_id": organization_id, "phone_number": number, "name": shown,
            "name_is_placeholder": name is None, "search": f"{shown.casefold()}\n{number}",
            "created_at": now(), "updated_at": now(),
        }  # fmt: skip
        session.execute(_insert(Contact).values(**values).on_conflict_do_nothing())
        contact = session.scalars(by_number).one()
    if name and contact.name_is_placeholder:
        contact.name, contact.name_is_placeholder, contact.updated_at = name, False, now()
    return contact


def _conversation(session: Session, organization_id: str, contact_id: str, ours: str) -> Conversation:
    key = {"contact_id": contact_id, "channel_type": "voice", "channel_identifier": ours}
    by_key = select(Conversation).filter_by(**key)
    conversation = session.scalar(by_key)
    if conversation is None:
        row = {"id": new_id(), "organization_id": organization_id, "created_at": now(), **key}
        session.execute(_insert(Conversation).values(**row).on_conflict_do_nothing())
        conversation = session.scalars(by_key).one()
    return conversation


def _events(
    call_id: str, contact_id: str, conversation_id: str, body: CallIn, started_at: str, ended_at: str,
    stored: Recording | None,
) -> list[dict[str, Any]]:  # fmt: skip
    ids = {"callId": call_id, "contactId": contact_id, "conversationId": conversation_id}
    initiated = {
        "direction": body.direction, "from": body.fromNumber, "to": body.toNumber,
        "externalCallId": body.externalCallId, "startedAt": started_at, "agentName": body.agentName,
    }  # fmt: skip
    ended = {
        "direction": body.direction, "status": body.status, "duration": body.duration, "endedAt": ended_at,
        "summary": body.summary,
    }  # fmt: skip
    told: list[tuple[str, dict[str, Any]]] = [("call_initiated", initiated), ("call_ended", ended)]
    if stored is not None:
        ready = {"duration": body.duration, "contentType": stored.content_type, "size": stored.size}
        told.append(("call_recording_ready", ready))
    told.append(("fetch_messages", {"channelType": "voice"}))
    return [
        {
            "name": name, "contact_id": contact_id, "conversation_id": conversation_id,
            "data": orjson.dumps(ids | {key: fact for key, fact in facts.items() if fact is not None}).decode(),
        }
        for name, facts in told
    ]  # fmt: skip


def build() -> FastAPI:
    return app
