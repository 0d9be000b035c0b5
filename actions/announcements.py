"""Every event the product emits, and what its `data` holds, as `openapi/events.yaml` publishes it.

A type is named after the schema in that document; a test compares the two field by field. An optional field that is
None is left out. One event is not made here: `erased`, which `persistence/erasure.py` writes over an event that told of
a person who was erased.
"""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from actions.stored_audio import StoredAudio
from domain.documents import load
from domain.events import Event, EventName
from domain.statuses import TransferOutcome
from domain.texts import shown
from persistence.models import Call, Contact, ContactEmail, ContactNote, Message, TransferRequest, VoiceAiConfig

# Calls.

CallInitiatedData = TypedDict(
    "CallInitiatedData",
    {
        "callId": str,
        "contactId": str,
        "conversationId": str,
        "direction": str,
        "from": str,
        "to": str,
        "externalCallId": NotRequired[str | None],
        "startedAt": str,
        "agentName": NotRequired[str | None],
    },
)


class CallEndedData(TypedDict):
    """`duration` in seconds."""

    callId: str
    contactId: str
    conversationId: str
    direction: str
    status: str
    duration: float
    endedAt: str
    summary: NotRequired[str | None]


class CallRecordingReadyData(TypedDict):
    """`duration` in seconds, `size` in bytes."""

    callId: str
    contactId: str
    conversationId: str
    duration: float
    contentType: str
    size: int


def call_recorded(call: Call, audio: StoredAudio | None) -> list[Event]:
    """Say that a call took place, all at once, because it is over when it becomes known."""
    contact_id, conversation_id = _parties(call)
    initiated: CallInitiatedData = {
        "callId": call.id,
        "contactId": contact_id,
        "conversationId": conversation_id,
        "direction": call.direction,
        "from": call.from_number,
        "to": call.to_number,
        "externalCallId": call.external_call_id,
        "startedAt": call.started_at,
        "agentName": call.agent_name,
    }
    ended: CallEndedData = {
        "callId": call.id,
        "contactId": contact_id,
        "conversationId": conversation_id,
        "direction": call.direction,
        "status": call.status,
        "duration": call.duration,
        "endedAt": call.ended_at,
        "summary": shown(call.summary),
    }
    fetch: FetchMessagesData = {
        "callId": call.id,
        "contactId": contact_id,
        "conversationId": conversation_id,
        "channelType": "voice",
    }
    return [
        _event(EventName.CALL_INITIATED, initiated, contact_id, conversation_id),
        _event(EventName.CALL_ENDED, ended, contact_id, conversation_id),
        *([] if audio is None else [recording_ready(call, audio)]),
        _event(EventName.FETCH_MESSAGES, fetch, contact_id, conversation_id),
    ]


def recording_ready(call: Call, audio: StoredAudio) -> Event:
    """Say that the recording of a call can be listened to."""
    contact_id, conversation_id = _parties(call)
    data: CallRecordingReadyData = {
        "callId": call.id,
        "contactId": contact_id,
        "conversationId": conversation_id,
        "duration": call.duration,
        "contentType": audio.content_type,
        "size": audio.size,
    }
    return _event(EventName.CALL_RECORDING_READY, data, contact_id, conversation_id)


def _parties(call: Call) -> tuple[str, str]:
    if call.contact_id is None or call.conversation_id is None:
        raise ValueError("A call whose contact was erased is not announced")
    return call.contact_id, call.conversation_id


# Requests for a person.


class TransferRequestedData(TypedDict):
    """A caller wants a person; the call and the contact are there as far as they are known."""

    transferRequestId: str
    reason: NotRequired[str | None]
    elevenlabsConversationId: NotRequired[str | None]
    callId: NotRequired[str | None]
    contactId: NotRequired[str | None]
    calledNumber: NotRequired[str | None]
    requestedAt: str


class TransferEndedData(TypedDict):
    """`outcome` is one of `domain.statuses.TransferOutcome`; `reason` is why it failed, in the vendor's words."""

    transferRequestId: str
    callId: str
    contactId: str
    outcome: str
    reason: NotRequired[str | None]


def transfer_requested(request: TransferRequest) -> Event:
    """Say that a caller wants a person."""
    data: TransferRequestedData = {
        "transferRequestId": request.id,
        "reason": request.reason,
        "elevenlabsConversationId": request.elevenlabs_conversation_id,
        "callId": request.call_id,
        "contactId": request.contact_id,
        "calledNumber": request.called_number,
        "requestedAt": request.requested_at,
    }
    return _event(EventName.TRANSFER_REQUESTED, data, request.contact_id)


def transfer_ended(call: Call, request: TransferRequest, outcome: TransferOutcome, reason: str | None) -> Event:
    """Say how a request for a person that was made during the call ended."""
    contact_id, _ = _parties(call)
    data: TransferEndedData = {
        "transferRequestId": request.id,
        "callId": call.id,
        "contactId": contact_id,
        "outcome": outcome.value,
        "reason": reason,
    }
    return _event(EventName.TRANSFER_ENDED, data, contact_id)


# Texts.


class MessageData(TypedDict):
    """A text as listeners see it."""

    id: str
    direction: str
    author: str
    text: str
    status: str
    skipAutomation: bool
    createdAt: str


class FetchMessagesData(TypedDict):
    """There is something new in a conversation: `message` or `callId` says what."""

    conversationId: str
    contactId: str
    channelType: str
    callId: NotRequired[str]
    messageId: NotRequired[str]
    message: NotRequired[MessageData]


class MessageStatusData(TypedDict):
    """`status` is one of `domain.statuses.MessageStatus`."""

    messageId: str
    conversationId: str
    contactId: str
    status: str
    error: NotRequired[str | None]


def message_queued(message: Message) -> Event:
    """Say that a text is about to be sent."""
    data: FetchMessagesData = {
        "conversationId": message.conversation_id,
        "contactId": message.contact_id,
        "channelType": "sms",
        "messageId": message.id,
        "message": {
            "id": message.id,
            "direction": message.direction,
            "author": message.author,
            "text": message.text,
            "status": message.status,
            "skipAutomation": message.skip_automation,
            "createdAt": message.created_at,
        },
    }
    return _event(EventName.FETCH_MESSAGES, data, message.contact_id, message.conversation_id)


def message_status(message: Message) -> Event:
    """Say how far a text got."""
    data: MessageStatusData = {
        "messageId": message.id,
        "conversationId": message.conversation_id,
        "contactId": message.contact_id,
        "status": message.status,
        "error": message.error or None,
    }
    return _event(EventName.MESSAGE_STATUS, data, message.contact_id, message.conversation_id)


# Notes and contacts.


class NoteSourceData(TypedDict):
    """The tool that was called; `conversationId` is the voice agent's own."""

    tool: str
    conversationId: NotRequired[str]


class NoteCreatedData(TypedDict):
    """`source` is there if an agent wrote the note."""

    noteId: str
    contactId: str
    type: str
    note: str
    source: NotRequired[NoteSourceData | None]
    createdAt: str


class NoteReactionData(TypedDict):
    """`users` are ids."""

    emoji: str
    users: list[str]
    count: int


class NoteUpdatedData(TypedDict):
    """The note as it is after the change."""

    noteId: str
    contactId: str
    type: str
    note: str
    reactions: list[NoteReactionData]
    isEdited: bool


class ContactEmailData(TypedDict):
    """An address of a contact."""

    value: str
    isPrimary: bool


class PreviousNameData(TypedDict):
    """Blank if no name was known."""

    firstName: str
    lastName: str


class ContactUpdatedData(TypedDict):
    """The contact as it is after the change; `updatedFields` are `firstName`, `lastName` and `email`."""

    contactId: str
    updatedFields: list[str]
    name: str
    firstName: str
    lastName: str
    emails: list[ContactEmailData]
    previous: PreviousNameData
    source: NoteSourceData


class ContactErasedData(TypedDict):
    """The contact's id is all that is left."""

    contactId: str


def note_created(note: ContactNote) -> Event:
    """Say that an agent or a person wrote a note."""
    data: NoteCreatedData = {
        "noteId": note.id,
        "contactId": note.contact_id,
        "type": note.type,
        "note": note.note,
        "source": _source(note.source_tool, note.elevenlabs_conversation_id) if note.source_tool else None,
        "createdAt": note.created_at,
    }
    return _event(EventName.NOTE_CREATED, data, note.contact_id)


def note_updated(note: ContactNote) -> Event:
    """Say that a note was edited, or that somebody reacted to it."""
    data: NoteUpdatedData = {
        "noteId": note.id,
        "contactId": note.contact_id,
        "type": note.type,
        "note": note.note,
        "reactions": [
            {"emoji": one["emoji"], "users": one["users"], "count": len(one["users"])} for one in load(note.reactions)
        ],
        "isEdited": note.is_edited,
    }
    return _event(EventName.NOTE_UPDATED, data, note.contact_id)


def contact_updated(
    contact: Contact,
    fields: Sequence[str],
    *,
    names: tuple[str, str],
    before: tuple[str, str],
    emails: Sequence[ContactEmail],
    tool: str,
    conversation_id: str | None,
) -> Event:
    """Say that an agent corrected a contact; `names` and `before` are first and last name, now and until now."""
    data: ContactUpdatedData = {
        "contactId": contact.id,
        "updatedFields": list(fields),
        "name": contact.name,
        "firstName": names[0],
        "lastName": names[1],
        "emails": [{"value": one.address, "isPrimary": one.is_primary} for one in emails],
        "previous": {"firstName": before[0], "lastName": before[1]},
        "source": _source(tool, conversation_id),
    }
    return _event(EventName.CONTACT_UPDATED, data, contact.id)


def contact_erased(contact_id: str) -> Event:
    """Say that nothing is left of a person."""
    data: ContactErasedData = {"contactId": contact_id}
    return _event(EventName.CONTACT_ERASED, data, contact_id)


def _source(tool: str, conversation_id: str | None) -> NoteSourceData:
    return {"tool": tool, "conversationId": conversation_id} if conversation_id is not None else {"tool": tool}


# The organization itself.


class VoiceAiWebhookData(TypedDict):
    """`status` is `configured` or `failed`."""

    status: str
    lastError: NotRequired[str | None]
    warning: NotRequired[str | None]


class AvailabilityChangedData(TypedDict):
    """The user, and how many of the organization are online and available after the change."""

    userId: str
    isOnline: bool
    isAvailable: bool
    onlineCount: int
    availableCount: int


def voice_ai_webhook(config: VoiceAiConfig) -> Event:
    """Say how setting up the webhook at ElevenLabs ended."""
    data: VoiceAiWebhookData = {
        "status": config.webhook_status,
        "lastError": config.webhook_error,
        "warning": config.webhook_warning,
    }
    return _event(EventName.VOICE_AI_WEBHOOK, data)


def availability_changed(
    user_id: str, *, is_online: bool, is_available: bool, online_count: int, available_count: int
) -> Event:
    """Say that a user came, left, or takes calls from now on or no more."""
    data: AvailabilityChangedData = {
        "userId": user_id,
        "isOnline": is_online,
        "isAvailable": is_available,
        "onlineCount": online_count,
        "availableCount": available_count,
    }
    return _event(EventName.AVAILABILITY_CHANGED, data)


def _event(
    name: EventName, data: Mapping[str, object], contact_id: str | None = None, conversation_id: str | None = None
) -> Event:
    present = {key: value for key, value in data.items() if value is not None}
    return Event(name, present, contact_id, conversation_id)
