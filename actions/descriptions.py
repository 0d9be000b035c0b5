"""Rows in the contract's words, as every reading operation shows them."""

from collections.abc import Sequence
from typing import Any

from domain.documents import HEAVY_BYTES, load
from domain.names import parts
from domain.texts import shown
from persistence.models import Call, Contact, ContactEmail, ContactNote, Conversation, Message, TransferRequest

_HEAVY_TEXT = 32 * 1024


def call(row: Call, *, has_recording: bool) -> dict[str, Any]:
    """Describe a call in a list: without its transcript, and with as much of its summary as lists show."""
    return {
        "_id": row.id,
        "callId": row.id,
        "organizationId": row.organization_id,
        "contactId": row.contact_id,
        "conversationId": row.conversation_id,
        "userId": row.user_id,
        "externalCallId": row.external_call_id,
        "elevenlabsConversationId": row.elevenlabs_conversation_id,
        "source": row.source,
        "direction": row.direction,
        "from": row.from_number,
        "to": row.to_number,
        "status": row.status,
        "duration": row.duration,
        "provider": row.source,
        "providerCallId": row.external_call_id,
        "providerPhoneNumber": row.to_number if row.direction == "inbound" else row.from_number,
        "startTime": row.started_at,
        "answerTime": row.started_at if row.status == "completed" else None,
        "endTime": row.ended_at,
        "recordings": [{"callId": row.id}] if has_recording else [],
        "startedAt": row.started_at,
        "endedAt": row.ended_at,
        "summary": shown(row.summary),
        "agentName": row.agent_name,
        "callerName": row.caller_name,
        "hasRecording": has_recording,
        "createdAt": row.created_at,
    }


def is_heavy(row: Call) -> bool:
    """Tell whether reading the call's transcript, metadata and summary takes more than a few milliseconds."""
    return len(row.transcript or "") + len(row.provider_metadata or "") + len(row.summary or "") > _HEAVY_TEXT


def is_heavy_page(entries: list[dict[str, Any]]) -> bool:
    """Tell whether writing a page of such descriptions takes more than a few milliseconds, because of long texts."""
    return sum(map(_length, entries)) > HEAVY_BYTES


def _length(entry: dict[str, Any]) -> int:
    values = entry.values()
    inner = sum(_length(value) for value in values if isinstance(value, dict))
    return inner + sum(len(value) for value in values if isinstance(value, str))


def turns(row: Call) -> list[dict[str, Any]] | None:
    """Return the transcript of a call, turn by turn, None when it has none."""
    transcript: list[dict[str, Any]] | None = None if row.transcript is None else load(row.transcript)
    return transcript


def names(row: Contact) -> tuple[str, str]:
    """Return first and last name; the first word of a name is the first name, unless somebody told them apart."""
    first, last = parts(row.name)
    if row.first_name is None and row.last_name is None:
        return first, last
    return row.first_name or "", row.last_name or ""


def emails(rows: Sequence[ContactEmail]) -> list[dict[str, Any]]:
    """Describe the email addresses of a contact."""
    return [{"value": row.address, "isPrimary": row.is_primary} for row in rows]


def contact(row: Contact, addresses: Sequence[ContactEmail] = ()) -> dict[str, Any]:
    """Describe a contact with its email addresses, the primary one first."""
    first, last = names(row)
    return {
        "_id": row.id,
        "organizationId": row.organization_id,
        "name": row.name,
        "firstName": first,
        "lastName": last,
        "phoneNumber": [{"value": row.phone_number, "isPrimary": True}],
        "secondaryPhoneNumber": [],
        "email": next((one.address for one in addresses if one.is_primary), None),
        "emails": emails(addresses),
        "status": None,
        "pipelineId": None,
        "pipelineStage": None,
        "userId": None,
        "createdBy": None,
        "assignees": [],
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }


def note(row: ContactNote) -> dict[str, Any]:
    """Describe a note; `row` came with its author."""
    author = row.user if row.user_id else None
    source = {"tool": row.source_tool, "conversationId": row.elevenlabs_conversation_id}
    return {
        "_id": row.id,
        "contactId": row.contact_id,
        "userId": None if author is None else {"_id": author.id, "fullName": author.full_name, "email": author.email},
        "type": row.type,
        "note": row.note,
        "mentions": load(row.mentions),
        "attachments": load(row.attachments),
        "reactions": [one | {"count": len(one["users"])} for one in load(row.reactions)],
        "isEdited": row.is_edited,
        "source": source if row.source_tool else None,
        "createdAt": row.created_at,
    }


def message(row: Message) -> dict[str, Any]:
    """Describe a text message."""
    return {
        "_id": row.id,
        "conversationId": row.conversation_id,
        "contactId": row.contact_id,
        "direction": row.direction,
        "author": row.author,
        "text": row.text,
        "from": row.from_number,
        "to": row.to_number,
        "status": row.status,
        "error": row.error,
        "skipAutomation": row.skip_automation,
        "sourceTool": row.source_tool,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }


def conversation(row: Conversation, *, latest: Message | None, messages: int) -> dict[str, Any]:
    """Describe a conversation, with its latest message and how many it has."""
    return {
        "_id": row.id,
        "organizationId": row.organization_id,
        "contactId": row.contact_id,
        "userId": None,
        "assignees": [],
        "channelType": row.channel_type,
        "channelIdentifier": row.channel_identifier,
        "latestMessage": None if latest is None else latest.text,
        "lastMessageTime": row.last_message_at,
        "isResolved": row.resolved_at is not None,
        "resolvedAt": row.resolved_at,
        "resolvedBy": row.resolved_by,
        "isAutopilot": False,
        "messageCount": messages,
        "createdAt": row.created_at,
        "updatedAt": row.last_message_at or row.created_at,
    }


def transfer_request(row: TransferRequest) -> dict[str, Any]:
    """Describe a caller's wish for a person."""
    return {
        "_id": row.id,
        "reason": row.reason,
        "callId": row.call_id,
        "elevenlabsConversationId": row.elevenlabs_conversation_id,
        "calledNumber": row.called_number,
        "requestedAt": row.requested_at,
        "outcome": row.outcome,
        "outcomeReason": row.outcome_reason,
    }
