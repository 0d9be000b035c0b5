"""What the tools have in common: whom a call is about, and how a repeated one is recognised."""

import hashlib
from dataclasses import dataclass

from domain.documents import canonical
from domain.errors import InvalidRequest, Speakable
from domain.phones import to_e164
from persistence import calls, contact_notes, contacts, messages, organizations
from persistence.models import Call, Contact


@dataclass(frozen=True, slots=True)
class Contacted:
    """The contact a tool call names; `number` is E.164."""

    id: str
    number: str


def find_contact(organization_id: str, phone_number: str, *, otherwise: str) -> Contacted:
    """Return the contact with that number, in a unit of the organization.

    Raises:
        Speakable: when the number cannot be one, or nobody has it; `otherwise` tells what was not done.
    """
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
    """Return the contact that the conversation's own notes and texts are about."""
    found = (
        contact_in(organization_id, conversation_id) for contact_in in (contact_notes.contact_in, messages.contact_in)
    )
    return next((contact_id for contact_id in found if contact_id), None)


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
