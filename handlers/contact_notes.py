"""Notes about contacts, read and written by people."""

from actions import descriptions
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
    PostContactNotes201,
    PostContactNotesAnswer,
)


async def get_contact_notes(
    request: Request[Relay], *, contact_id: str, limit: int, cursor: str | None
) -> GetContactNotesAnswer:
    """List a contact's notes, newest first."""
    page = await list_notes(request.relay, request.caller.organization_id, contact_id, limit=limit, cursor=cursor)
    await noted_reading(request, AuditAction.NOTES_READ, contact_id)
    body = {"success": True, "data": page.entries, "next": page.next}
    is_heavy = descriptions.is_heavy_page(page.entries)
    return GetContactNotes200(
        await written(request, models.ContactNotesResponse, body, is_heavy=is_heavy), is_heavy=is_heavy
    )


async def post_contact_notes(request: Request[Relay], *, body: models.ContactNoteRequest) -> PostContactNotesAnswer:
    """Write a note about a contact."""
    organization_id, user_id = user_of(request)
    attachments = [one.model_dump(mode="json", exclude_unset=True) for one in body.attachments or []]
    written = NoteToWrite(body.contactId, body.note, body.mentions or [], attachments)
    note = await write_note(request.relay, organization_id, user_id, written)
    answer = {"success": True, "message": "Note created", "data": note}
    return PostContactNotes201(models.ContactNoteResponse.model_validate(answer))
