"""Contacts: the people on the far side."""

from domain.times import now
from persistence.models import Contact

PLACEHOLDER_NAME = "Unknown Caller"


def by_phone(organization_id: str, phone_number: str) -> Contact | None:
    """Return the contact with that number (E.164)."""
    return Contact.get_or_none(Contact.organization == organization_id, Contact.phone_number == phone_number)


def get(organization_id: str, contact_id: str) -> Contact | None:
    """Return the organization's contact of that id."""
    return Contact.get_or_none(Contact.organization == organization_id, Contact.id == contact_id)


def upsert(organization_id: str, phone_number: str, name: str | None) -> Contact:
    """Find or create the contact with that number; `name` only ever replaces the placeholder."""
    Contact.insert(
        organization=organization_id,
        phone_number=phone_number,
        name=name or PLACEHOLDER_NAME,
        name_is_placeholder=name is None,
        search=_searchable(name or PLACEHOLDER_NAME, phone_number),
    ).on_conflict_ignore().execute()
    contact = Contact.get(Contact.organization == organization_id, Contact.phone_number == phone_number)
    return _backfill(contact, name) if name and contact.name_is_placeholder else contact


def _backfill(contact: Contact, name: str) -> Contact:
    contact.name, contact.name_is_placeholder, contact.updated_at = name, False, now()
    contact.search = _searchable(name, contact.phone_number)
    contact.save()
    return contact


def _searchable(name: str, phone_number: str) -> str:
    # What "the same letter" is would differ between engines; ours is decided here.
    return f"{name}\n{phone_number}".casefold()
