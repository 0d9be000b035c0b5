"""The events live listeners receive: their names, in the contract's words, and what each carries.

`data` holds the ids a client needs to fetch the rest and what a live view shows without a second request. Its shape is
published in `openapi/events.yaml`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class EventName(StrEnum):
    """Every event this server emits."""

    CALL_INITIATED = "call_initiated"
    CALL_ENDED = "call_ended"
    CALL_RECORDING_READY = "call_recording_ready"
    FETCH_MESSAGES = "fetch_messages"
    NOTE_CREATED = "note_created"
    TRANSFER_REQUESTED = "transfer_requested"
    TRANSFER_ENDED = "transfer_ended"
    MESSAGE_STATUS = "message_status"
    VOICE_AI_WEBHOOK = "voice_ai_webhook"
    NOTE_UPDATED = "note_updated"
    CONTACT_UPDATED = "contact_updated"
    AVAILABILITY_CHANGED = "availability_changed"
    CONTACT_ERASED = "contact_erased"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; it gets its sequence and its time when it is written to the outbox."""

    name: EventName
    data: dict[str, Any]
    contact_id: str | None = None
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One committed event: `sequence` has no gaps within its organization, `data` is JSON text."""

    organization_id: str
    sequence: int
    name: str
    at: str
    data: str
    contact_id: str | None = None
    conversation_id: str | None = None
