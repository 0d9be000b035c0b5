"""Notes about contacts, read and written by people."""

from typing import Any

from actions import descriptions
from actions.edit_note import NoteChange, edit_note, toggle_reaction
from actions.read_contacts import list_notes
from actions.relay import Relay
from actions.write_note import NoteToWrite, write_note
from domain.audit import AuditAction
from handlers.acting import noted_reading, user_of, written
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetContactNotes200,
    GetContactNotesAnswer,
    PatchContactNotes200,
    PatchContactNotesAnswer,
    PostContactNotes201,
    PostContactNotesAnswer,
    PostContactNotesReaction200,
    PostContactNotesReactionAnswer,
)


async def get_contact_notes(
    request: Request[Relay], *, contact_id: str, limit: str, offset: str, cursor: str | None
) -> GetContactNotesAnswer:
    """List a contact's notes, newest first."""
    organization_id, most, passed = request.caller.organization_id, int(limit), int(offset)
    page, total = await list_notes(request.relay, organization_id, contact_id, limit=most, offset=passed, cursor=cursor)
    await noted_reading(request, AuditAction.NOTES_READ, contact_id)
    pagination = {"total": total, "limit": most, "offset": passed, "hasMore": page.next is not None}
    body = {"success": True, "data": page.entries, "pagination": pagination, "next": page.next}
    is_heavy = descriptions.is_heavy_page(page.entries)
    return GetContactNotes200(
        await written(request, models.ContactNotesResponse, body, is_heavy=is_heavy), is_heavy=is_heavy
    )


async def post_contact_notes(request: Request[Relay], *, body: models.ContactNoteRequest) -> PostContactNotesAnswer:
    """Write a note about a contact."""
    organization_id, user_id = user_of(request)
    written = NoteToWrite(body.contactId, body.note or "", body.mentions or [], _files(body.attachments) or [])
    note = await write_note(request.relay, organization_id, user_id, written)
    return PostContactNotes201(_answer("Note created", note))


async def patch_contact_notes(
    request: Request[Relay], *, body: models.ContactNoteChangeRequest, note_id: str
) -> PatchContactNotesAnswer:
    """Edit a note."""
    change = NoteChange(body.note, body.mentions, _files(body.attachments))
    note = await edit_note(request.relay, request.caller.organization_id, note_id, change)
    return PatchContactNotes200(_answer("Note updated", note))


async def post_contact_notes_reaction(
    request: Request[Relay], *, body: models.ContactNoteReactionRequest, note_id: str
) -> PostContactNotesReactionAnswer:
    """Add or remove the caller's reaction to a note."""
    organization_id, user_id = user_of(request)
    note = await toggle_reaction(request.relay, organization_id, user_id, note_id, body.emoji)
    return PostContactNotesReaction200(_answer("Reaction toggled", note))


def _files(attached: list[models.ContactNoteAttachment] | None) -> list[dict[str, Any]] | None:
    return None if attached is None else [one.model_dump(mode="json", exclude_unset=True) for one in attached]


def _answer(message: str, note: dict[str, Any]) -> models.ContactNoteResponse:
    return models.ContactNoteResponse.model_validate({"success": True, "message": message, "data": note})
