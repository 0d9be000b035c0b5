"""Rows as the contract's models, as every reading operation shows them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from actions.read_calls import ShownCall, WholeCall
from actions.read_contacts import ShownContact, TimelineEntry
from actions.read_conversations import ShownConversation
from domain.documents import HEAVY_BYTES, load
from domain.names import first_and_last
from domain.statuses import CallStatus, Direction, MessageStatus, TransferOutcome
from domain.texts import shown
from openapi import models
from persistence.models import Call, ContactEmail, ContactNote, Message, TransferRequest

_HEAVY_TEXT = 32 * 1024

_Kind: TypeAlias = Literal["note", "call", "message", "transfer_request"]


def call(given: ShownCall) -> models.CallsCall:
    """Show a call in a list: without its transcript, and with as much of its summary as lists show."""
    row = given.row
    started_at, ended_at = moment(row.started_at), moment(row.ended_at)
    return models.CallsCall(
        field_id=row.id,
        callId=row.id,
        organizationId=row.organization_id,
        contactId=row.contact_id,
        conversationId=row.conversation_id,
        userId=row.user_id,
        externalCallId=row.external_call_id,
        elevenlabsConversationId=row.elevenlabs_conversation_id,
        source=row.source,
        direction=Direction(row.direction).value,
        from_=row.from_number,
        to=row.to_number,
        status=CallStatus(row.status).value,
        duration=row.duration,
        provider=row.source,
        providerCallId=row.external_call_id,
        providerPhoneNumber=row.to_number if row.direction == Direction.INBOUND else row.from_number,
        startTime=started_at,
        answerTime=started_at if row.status == CallStatus.COMPLETED else None,
        endTime=ended_at,
        recordings=[models.CallsCallRecording(callId=row.id)] if given.has_recording else [],
        startedAt=started_at,
        endedAt=ended_at,
        summary=shown(row.summary),
        agentName=row.agent_name,
        callerName=row.caller_name,
        hasRecording=given.has_recording,
        createdAt=moment(row.created_at),
    )


def whole_call(given: WholeCall) -> models.CallsCall:
    """Show a call with everything that is known of it."""
    row, told = given.row, call(ShownCall(given.row, given.has_recording))
    told.summary = row.summary
    told.transcript = turns(row)
    told.providerMetadata = models.CallsCallProviderMetadata.model_validate(load(row.provider_metadata))
    told.transferRequests = [transfer_request(one) for one in given.transfer_requests]
    return told


def turns(row: Call) -> list[models.CallsTranscriptTurn] | None:
    """Show the transcript of a call, turn by turn, None when it has none."""
    if row.transcript is None:
        return None
    return [models.CallsTranscriptTurn.model_validate(turn) for turn in load(row.transcript)]


def is_heavy(row: Call) -> bool:
    """Tell whether showing the call's transcript, metadata and summary takes more than a few milliseconds."""
    return len(row.transcript or "") + len(row.provider_metadata or "") + len(row.summary or "") > _HEAVY_TEXT


def is_long(texts: Iterable[str | None]) -> bool:
    """Tell whether writing a page with these texts takes more than a few milliseconds."""
    return sum(len(text) for text in texts if text) > HEAVY_BYTES


def contact(given: ShownContact) -> models.Contact:
    """Show a contact with its email addresses."""
    row = given.row
    first, last = first_and_last(row.name, row.first_name, row.last_name)
    return models.Contact(
        field_id=row.id,
        organizationId=row.organization_id,
        name=row.name,
        firstName=first,
        lastName=last,
        phoneNumber=[models.ContactPhoneNumber(value=row.phone_number, isPrimary=True)],
        secondaryPhoneNumber=[],
        email=next((one.address for one in given.emails if one.is_primary), None),
        emails=_emails(given.emails),
        status=None,
        pipelineId=None,
        pipelineStage=None,
        userId=None,
        createdBy=None,
        assignees=[],
        createdAt=moment(row.created_at),
        updatedAt=moment(row.updated_at),
    )


def _emails(rows: Sequence[ContactEmail]) -> list[models.ContactEmail]:
    return [models.ContactEmail(value=row.address, isPrimary=row.is_primary) for row in rows]


def note(row: ContactNote) -> models.ContactNote:
    """Show a note; `row` came with its author."""
    author = row.user if row.user_id else None
    return models.ContactNote(
        field_id=row.id,
        contactId=row.contact_id,
        userId=None
        if author is None
        else models.ContactNoteUserId(field_id=author.id, fullName=author.full_name, email=author.email),
        type=row.type,
        note=row.note,
        mentions=load(row.mentions),
        attachments=[models.ContactNoteAttachment.model_validate(one) for one in load(row.attachments)],
        reactions=[_reaction(one) for one in load(row.reactions)],
        isEdited=row.is_edited,
        source=models.ContactNoteSource(tool=row.source_tool, conversationId=row.elevenlabs_conversation_id)
        if row.source_tool
        else None,
        createdAt=moment(row.created_at),
    )


def _reaction(stored: dict[str, Any]) -> models.ContactNoteReaction:
    return models.ContactNoteReaction(emoji=stored["emoji"], users=stored["users"], count=len(stored["users"]))


def message(row: Message) -> models.ConversationMessage:
    """Show a text message."""
    return models.ConversationMessage(
        field_id=row.id,
        conversationId=row.conversation_id,
        contactId=row.contact_id,
        direction=Direction(row.direction).value,
        author=row.author,
        text=row.text,
        from_=row.from_number,
        to=row.to_number,
        status=MessageStatus(row.status).value,
        error=row.error,
        skipAutomation=row.skip_automation,
        sourceTool=row.source_tool,
        createdAt=moment(row.created_at),
        updatedAt=moment(row.updated_at),
    )


def conversation(given: ShownConversation) -> models.Conversation:
    """Show a conversation, with its latest message and how many it has."""
    row = given.row
    return models.Conversation(
        field_id=row.id,
        organizationId=row.organization_id,
        contactId=row.contact_id,
        userId=None,
        assignees=[],
        channelType=row.channel_type,
        channelIdentifier=row.channel_identifier,
        latestMessage=None if given.latest is None else given.latest.text,
        lastMessageTime=moment_or_none(row.last_message_at),
        isResolved=row.resolved_at is not None,
        resolvedAt=moment_or_none(row.resolved_at),
        resolvedBy=row.resolved_by,
        isAutopilot=False,
        messageCount=given.message_count,
        createdAt=moment(row.created_at),
        updatedAt=moment(row.last_message_at or row.created_at),
    )


def transfer_request(row: TransferRequest) -> models.TransferRequest:
    """Show a caller's transfer request."""
    return models.TransferRequest(
        field_id=row.id,
        reason=row.reason,
        callId=row.call_id,
        elevenlabsConversationId=row.elevenlabs_conversation_id,
        calledNumber=row.called_number,
        requestedAt=moment(row.requested_at),
        outcome=TransferOutcome(row.outcome).value if row.outcome else None,
        outcomeReason=row.outcome_reason,
    )


def timeline_item(entry: TimelineEntry) -> models.ContactTimelineItem:
    """Show what happened under the name of its kind."""
    if isinstance(entry.what, ContactNote):
        item = _item("note", entry)
        item.note = note(entry.what)
    elif isinstance(entry.what, ShownCall):
        item = _item("call", entry)
        item.call = call(entry.what)
    elif isinstance(entry.what, Message):
        item = _item("message", entry)
        item.message = message(entry.what)
    else:
        item = _item("transfer_request", entry)
        item.transferRequest = transfer_request(entry.what)
    return item


def _item(kind: _Kind, entry: TimelineEntry) -> models.ContactTimelineItem:
    return models.ContactTimelineItem(kind=kind, id=entry.id, at=moment(entry.at))


def text_of(entry: TimelineEntry) -> str | None:
    """Return the text of an entry that may be long."""
    if isinstance(entry.what, ShownCall):
        return shown(entry.what.row.summary)
    if isinstance(entry.what, ContactNote):
        return str(entry.what.note)
    return str(entry.what.text) if isinstance(entry.what, Message) else entry.what.reason


def moment(text: str) -> datetime:
    """Return a stored moment as the models have it; what is stored is in UTC."""
    return datetime.fromisoformat(text)


def moment_or_none(text: str | None) -> datetime | None:
    """Return a stored moment that may be missing."""
    return None if text is None else moment(text)
