"""Handlers of the operations on contacts."""

from actions.relay import Relay
from openapi import exchange, operations


async def get_contacts(
    request: exchange.Request[Relay], *, page: int, size: int, search: str | None
) -> operations.GetContactsAnswer:
    """List contacts, newest first."""
    del request, page, size, search
    raise exchange.NotWritten


async def get_contacts_contact(
    request: exchange.Request[Relay], *, contact_id: str
) -> operations.GetContactsContactAnswer:
    """Read one contact."""
    del request, contact_id
    raise exchange.NotWritten


async def delete_contacts_contact(
    request: exchange.Request[Relay], *, contact_id: str
) -> operations.DeleteContactsContactAnswer:
    """Erase a contact."""
    del request, contact_id
    raise exchange.NotWritten


async def get_contacts_timeline(
    request: exchange.Request[Relay], *, contact_id: str, limit: int, cursor: str | None
) -> operations.GetContactsTimelineAnswer:
    """Read a contact's story, newest first."""
    del request, contact_id, limit, cursor
    raise exchange.NotWritten
