"""Notes about contacts, read and written by people."""

from typing import Any

from actions.edit_note import NoteChange, edit_note, toggle_reaction
from actions.read_contacts import list_notes
from actions.relay import Relay
from actions.write_note import NoteToWrite, write_note
from domain.audit import AuditAction
from handlers import wire
from handlers.acting import built, noted_reading, user_of
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

    def build() -> models.ContactNotesResponse:
        has_more = page.next is not None
        return models.ContactNotesResponse(
            success=True,
            data=[wire.note(row) for row in page.entries],
            pagination=models.ContactNotesResponsePagination(total=total, limit=most, offset=passed, hasMore=has_more),
            next=page.next,
        )

    is_heavy = wire.is_long(row.note for row in page.entries)
    return GetContactNotes200(await built(request, build, is_heavy=is_heavy), is_heavy=is_heavy)


async def post_contact_notes(request: Request[Relay], *, body: models.ContactNoteRequest) -> PostContactNotesAnswer:
    """Write a note about a contact."""
    organization_id, user_id = user_of(request)
    written = NoteToWrite(body.contactId, body.note or "", body.mentions or [], _files(body.attachments) or [])
    note = await write_note(request.relay, organization_id, user_id, written)
    return PostContactNotes201(models.ContactNoteResponse(success=True, message="Note created", data=wire.note(note)))


async def patch_contact_notes(
    request: Request[Relay], *, body: models.ContactNoteChangeRequest, note_id: str
) -> PatchContactNotesAnswer:
    """Edit a note."""
    change = NoteChange(body.note, body.mentions, _files(body.attachments))
    note = await edit_note(request.relay, request.caller.organization_id, note_id, change)
    return PatchContactNotes200(models.ContactNoteResponse(success=True, message="Note updated", data=wire.note(note)))


async def post_contact_notes_reaction(
    request: Request[Relay], *, body: models.ContactNoteReactionRequest, note_id: str
) -> PostContactNotesReactionAnswer:
    """Add or remove the caller's reaction to a note."""
    organization_id, user_id = user_of(request)
    note = await toggle_reaction(request.relay, organization_id, user_id, note_id, body.emoji)
    return PostContactNotesReaction200(
        models.ContactNoteResponse(success=True, message="Reaction toggled", data=wire.note(note))
    )


def _files(attached: list[models.ContactNoteAttachment] | None) -> list[dict[str, Any]] | None:
    return None if attached is None else [one.model_dump(mode="json", exclude_unset=True) for one in attached]
