"""Handlers of the operations on contact notes."""

from actions.relay import Relay
from openapi import exchange, models, operations


async def get_contact_notes(
    request: exchange.Request[Relay], *, contact_id: str, limit: int, cursor: str | None
) -> operations.GetContactNotesAnswer:
    """List a contact's notes, newest first."""
    del request, contact_id, limit, cursor
    raise exchange.NotWritten


async def post_contact_notes(
    request: exchange.Request[Relay], *, body: models.ContactNoteRequest
) -> operations.PostContactNotesAnswer:
    """Write a note about a contact."""
    del request, body
    raise exchange.NotWritten
