"""Contacts: a list, one of them, their story, and their erasure."""

from actions.erase_contact import erase_contact
from actions.read_contacts import find_contact_by_number, list_contacts, read_contact, read_timeline
from actions.relay import Relay
from domain.audit import AuditAction
from domain.principals import Role
from handlers import wire
from handlers.acting import actor_of, built, noted_reading
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    DeleteContactsContact200,
    DeleteContactsContactAnswer,
    GetContacts200,
    GetContactsAnswer,
    GetContactsContact200,
    GetContactsContactAnswer,
    GetContactsTimeline200,
    GetContactsTimelineAnswer,
    PostContactsPhoneNumber200,
    PostContactsPhoneNumberAnswer,
)


async def get_contacts(request: Request[Relay], *, page: int, size: int, search: str | None) -> GetContactsAnswer:
    """List contacts, newest first."""
    found = await list_contacts(request.relay, request.caller.organization_id, search, number=page, size=size)
    await noted_reading(request, AuditAction.CONTACTS_LISTED, page=page, size=size, isSearch=search is not None)
    shown = [wire.contact(contact) for contact in found.contacts]
    data = models.ContactsResponseData(contacts=shown, total=found.total, page=page, size=size)
    return GetContacts200(models.ContactsResponse(success=True, data=data))


async def get_contacts_contact(request: Request[Relay], *, id_: str) -> GetContactsContactAnswer:
    """Read one contact."""
    contact = await read_contact(request.relay, request.caller.organization_id, id_)
    await noted_reading(request, AuditAction.CONTACT_READ, id_)
    return GetContactsContact200(models.ContactResponse(success=True, data=wire.contact(contact)))


async def delete_contacts_contact(request: Request[Relay], *, id_: str) -> DeleteContactsContactAnswer:
    """Erase a contact."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    erased = await erase_contact(request.relay, request.caller.organization_id, id_, actor_of(request))
    rows = {
        "calls": erased.calls,
        "recordings": erased.recordings,
        "notes": erased.notes,
        "messages": erased.messages,
        "transferRequests": erased.transfer_requests,
        "emails": erased.emails,
        "callContexts": erased.contexts,
        "events": erased.events,
    }
    body = models.ContactErasedResponse(success=True, message="Contact erased", erased=rows)
    return DeleteContactsContact200(body)


async def get_contacts_timeline(
    request: Request[Relay], *, contact_id: str, limit: int, cursor: str | None
) -> GetContactsTimelineAnswer:
    """Read a contact's story, newest first."""
    page = await read_timeline(request.relay, request.caller.organization_id, contact_id, limit=limit, cursor=cursor)
    await noted_reading(request, AuditAction.TIMELINE_READ, contact_id)

    def build() -> models.ContactTimelineResponse:
        items = [wire.timeline_item(entry) for entry in page.entries]
        return models.ContactTimelineResponse(success=True, timeline=items, next=page.next)

    is_heavy = wire.is_long(wire.text_of(entry) for entry in page.entries)
    return GetContactsTimeline200(await built(request, build, is_heavy=is_heavy), is_heavy=is_heavy)


async def post_contacts_phone_number(
    request: Request[Relay], *, body: models.ContactLookupRequest
) -> PostContactsPhoneNumberAnswer:
    """Find a contact by its number."""
    found = await find_contact_by_number(request.relay, request.caller.organization_id, body.phoneNumber)
    await noted_reading(request, AuditAction.CONTACT_READ, found.row.id)
    return PostContactsPhoneNumber200(
        models.ContactLookupResponse(success=True, message="Contact found", data=wire.contact(found))
    )
