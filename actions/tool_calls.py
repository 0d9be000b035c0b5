"""What the tools have in common: whom a call is about, and how a repeated one is recognised."""

import hashlib
from dataclasses import dataclass

from domain.calls import CALL_CONTEXT_SECONDS
from domain.documents import canonical
from domain.errors import InvalidRequest, Speakable
from domain.phones import to_e164
from domain.times import later
from persistence import call_contexts, calls, contact_notes, contacts, messages, organizations
from persistence.models import Call, CallContext, Contact


@dataclass(frozen=True, slots=True)
class Contacted:
    """The contact a tool call names; `number` is E.164."""

    id: str
    number: str


def find_contact(
    organization_id: str, phone_number: str, conversation_id: str | None = None, *, otherwise: str
) -> Contacted:
    """Return the contact with that number, in a unit of the organization; if it is blank, the conversation's caller.

    Raises:
        Speakable: when the number cannot be one, or nobody has it; `otherwise` tells what was not done.
    """
    if not phone_number.strip() and (caller := _caller_of(organization_id, conversation_id)):
        return Contacted(caller.id, caller.phone_number)
    number = normalise(organization_id, phone_number)
    if number is None:
        raise Speakable(f"That does not look like a phone number, so {otherwise}.")
    contact: Contact | None = contacts.by_phone(organization_id, number)
    if contact is None:
        raise Speakable(f"No contact with that phone number was found, so {otherwise}.")
    return Contacted(contact.id, number)


def call_of(organization_id: str, conversation_id: str | None) -> Call | None:
    """Return the call of a conversation, or None if it is not recorded yet.

    In a unit of the organization neither misses the other: while the call is being recorded, the unit waits.
    """
    if conversation_id is None:
        return None
    return calls.by_elevenlabs_conversation(organization_id, conversation_id)


def contact_of(organization_id: str, conversation_id: str) -> str | None:
    """Return the contact that the conversation's own notes and texts are about, or who was calling when it began."""
    found = (
        contact_in(organization_id, conversation_id)
        for contact_in in (contact_notes.contact_in, messages.contact_in, _calling)
    )
    return next((contact_id for contact_id in found if contact_id), None)


def context_of(organization_id: str, conversation_id: str | None, call_sid: str | None = None) -> CallContext | None:
    """Return what was known of the call when it connected, if that was less than a day ago."""
    return call_contexts.find(organization_id, conversation_id, call_sid, later(-CALL_CONTEXT_SECONDS))


def _calling(organization_id: str, conversation_id: str) -> str | None:
    # The contact may have been added, or erased, since the call connected; the number tells.
    context = context_of(organization_id, conversation_id)
    number = context.caller_number if context else None
    contact = contacts.by_phone(organization_id, number) if number else None
    return contact.id if contact else None


def _caller_of(organization_id: str, conversation_id: str | None) -> Contact | None:
    if conversation_id is None:
        return None
    call = call_of(organization_id, conversation_id)
    contact_id = call.contact_id if call else contact_of(organization_id, conversation_id)
    return contacts.get(organization_id, contact_id) if contact_id else None


def normalise(organization_id: str, phone_number: str) -> str | None:
    """Return `phone_number` as E.164, read with the organization's default region, or None."""
    organization = organizations.get(organization_id)
    try:
        return to_e164(phone_number, organization.default_region if organization else None)
    except InvalidRequest:
        return None


def fingerprint(tool: str, conversation_id: str | None, *particulars: str | None) -> str:
    """Return what makes two calls of a tool the same call."""
    return hashlib.sha256(canonical([tool, conversation_id, *particulars])).hexdigest()
