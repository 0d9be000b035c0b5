"""The words on the wire: frames from us as ready bytes, messages from listeners as values.

A frame here is a complete, unmasked, unfragmented RFC 6455 text frame, so that one build serves every listener and
several of them can be joined into one write. Shapes are published in `openapi/events.yaml`.
"""

from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from domain import documents, times
from domain.errors import InvalidRequest
from domain.events import EventName, StoredEvent
from domain.gaps import Gap

MAX_SEQUENCE = 2**63 - 1

_TEXT = 0x81  # FIN and opcode 1


class Close(IntEnum):
    """Why we close a connection; what a client does about each is published in `openapi/events.yaml`."""

    NO_ANSWER = 1011
    RESTART = 1012
    TRY_LATER = 1013
    UNAUTHENTICATED = 4401
    ORIGIN = 4403
    AUTH_TIMEOUT = 4408
    TOO_MANY = 4429
    TOO_SLOW = 4490
    TOKEN_REVOKED = 4497
    TOKEN_EXPIRED = 4498


Sequence = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQUENCE)]
Identifier = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{24}\z")]


# Frames from us.


def event(stored: StoredEvent) -> bytes:
    """Build the frame that announces `stored`; its data is already JSON and is not parsed again."""
    head = f'{{"type":"event","seq":{stored.sequence},"event":"{stored.name}","at":"{stored.at}","data":'
    return text((head + stored.data + "}").encode())


def hello(
    *,
    epoch: str,
    sequence: int,
    since: int,
    expires_at: str | None,
    retention_hours: float,
    heartbeat: float,
    jitter: float,
) -> bytes:
    """Build the frame that says where the listener stands; every event that follows it is newer than `since`."""
    return _frame(
        {
            "type": "hello",
            "epoch": epoch,
            "sequence": sequence,
            "since": since,
            "serverTime": times.now(),
            "expiresAt": expires_at,
            "retentionHours": retention_hours,
            "heartbeatSeconds": heartbeat,
            "reconnect": {"jitterSeconds": jitter, "baseSeconds": 0.5, "maxSeconds": 30},
        }
    )


def gap(epoch: str, missing: Gap) -> bytes:
    """Build the frame that admits a loss in the log `epoch`."""
    return _frame({"type": "gap", "epoch": epoch, **missing._asdict()})


def subscribed(filters: dict[str, Any], sequence: int) -> bytes:
    """Build the answer to `subscribe`: the filters in force for everything after `sequence`."""
    return _frame({"type": "subscribed", "sequence": sequence, **filters})


def pong(sequence: int) -> bytes:
    """Build the answer to `ping`: everything up to `sequence` has been sent, or was filtered out."""
    return _frame({"type": "pong", "sequence": sequence, "serverTime": times.now()})


def error(code: str, message: str) -> bytes:
    """Build the frame that says what went wrong: a code for programs, a sentence for people."""
    return _frame({"type": "error", "code": code, "message": message})


def text(payload: bytes) -> bytes:
    """Wrap UTF-8 `payload` in one RFC 6455 text frame."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


def _frame(document: dict[str, Any]) -> bytes:
    return text(documents.dump(document))


# Messages from listeners.


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True, validate_by_name=False
    )


class Wanted(_Message):
    """What a listener wants to see; None means all."""

    events: frozenset[EventName] | None = None
    contact_id: Identifier | None = None
    conversation_id: Identifier | None = None


class Start(Wanted):
    """Where and with which filters a connection starts; `since` None means from now on.

    `epoch` is that of the log `since` belongs to; without one it is taken to be this log.
    """

    since: Sequence | None = None
    epoch: Identifier | None = None


class Auth(Start):
    """The token, from those who cannot set a header; sent again to renew a session in place."""

    type: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=4096, repr=False)]


class Resume(_Message):
    """Start over after `since`."""

    type: Literal["resume"]
    since: Sequence
    epoch: Identifier | None = None


class Subscribe(Wanted):
    """Replace the filters, from here on."""

    type: Literal["subscribe"]


class Ping(_Message):
    """Ask whether we are there, and up to where."""

    type: Literal["ping"]


ListenerMessage = Auth | Resume | Subscribe | Ping
_messages: TypeAdapter[ListenerMessage] = TypeAdapter(Annotated[ListenerMessage, Field(discriminator="type")])


def parse(raw: str | bytes) -> ListenerMessage:
    """Read one message of a listener.

    Raises:
        InvalidRequest: when it is not JSON in a text frame, or not one of the published messages; the sentence names
            the first problem and repeats nothing of the content.
    """
    if isinstance(raw, bytes):
        raise InvalidRequest("Messages are JSON in text frames, not binary ones.")
    document = documents.load(raw)
    try:
        return _messages.validate_python(document)
    except ValidationError as problem:
        raise InvalidRequest(_sentence(problem)) from None


def parse_query(parameters: list[tuple[str, str]]) -> Start:
    """Read the query of a connection's address: `since`, `epoch`, `events` (by commas), `contactId`, `conversationId`.

    Raises:
        InvalidRequest: when a parameter is unknown, repeated or malformed; a token in an address is always refused.
    """
    fields: dict[str, Any] = dict(parameters)
    if len(fields) != len(parameters):
        raise InvalidRequest("A query parameter is repeated.")
    if "events" in fields:
        fields["events"] = fields["events"].split(",")
    if fields.get("since", "").isascii() and fields.get("since", "").isdecimal():
        fields["since"] = int(fields["since"][:20])
    try:
        return Start.model_validate(fields)
    except ValidationError as problem:
        raise InvalidRequest(_sentence(problem)) from None


def _sentence(problem: ValidationError) -> str:
    first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
    kind = first["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        return "The message's type must be auth, resume, subscribe or ping."
    # The last part of a location that is text is the field; numbers are places in a list.
    field = next((part for part in reversed(first["loc"]) if isinstance(part, str)), "message")
    if kind == "extra_forbidden":
        return f"{field[:40]} is not a known field." if field.isidentifier() else "There is an unknown field."
    return f"{field} is not valid: {first['msg'][:120]}."
