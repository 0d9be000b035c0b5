"""Contacts: the people on the far side."""

from peewee import Expression, fn

from domain.names import PLACEHOLDER_NAME
from domain.times import now
from persistence import pages
from persistence.models import Contact
from persistence.statements import Insertion, Lookup

_BY_PHONE = Lookup(Contact, "organization", "phone_number")
_CONTACT = Insertion(Contact, unless_taken=True)


def by_phone(organization_id: str, phone_number: str) -> Contact | None:
    """Return the contact with that number (E.164)."""
    return _BY_PHONE.find(organization_id, phone_number)


def get(organization_id: str, contact_id: str) -> Contact | None:
    """Return the organization's contact of that id; one that is being erased is there no more."""
    return Contact.get_or_none(
        Contact.organization == organization_id, Contact.id == contact_id, Contact.erased_at.is_null()
    )


def count(organization_id: str, search: str | None = None) -> int:
    """Return how many of the organization's contacts match `search` (see `page`)."""
    return int(Contact.select(fn.COUNT(1)).where(_matching(organization_id, search)).scalar())


def page(organization_id: str, search: str | None, *, total: int, offset: int, limit: int) -> list[Contact]:
    """Return the contacts `offset` to `offset + limit` of the `total` that match, newest first.

    `search` is a part of a name or of a number, in any case; looking for one reads every contact of the organization.
    """
    matching = _matching(organization_id, search)
    ids = pages.numbered(Contact, matching, Contact.created_at, total=total, offset=offset, limit=limit)
    query = Contact.select().where(pages.among(Contact, organization_id, Contact.id, ids))
    found = {contact.id: contact for contact in query} if ids else {}
    return [found[contact_id] for contact_id in ids if contact_id in found]


def upsert(organization_id: str, phone_number: str, name: str | None) -> Contact:
    """Find or create the contact with that number; `name` replaces the placeholder and nothing else.

    A `name` that is the placeholder itself, as a caller who read it here may send it, counts as no name.
    """
    name = None if name == PLACEHOLDER_NAME else name
    contact = by_phone(organization_id, phone_number) or _made(organization_id, phone_number, name)
    return _backfill(contact, name) if name and contact.name_is_placeholder else contact


def name_if_unknown(organization_id: str, contact_id: str, name: str) -> None:
    """Replace the placeholder in the contact's name, if it is still there, by `name`."""
    contact = get(organization_id, contact_id)
    if contact is not None and contact.name_is_placeholder and name != PLACEHOLDER_NAME:
        _backfill(contact, name)


def set_names(organization_id: str, contact_id: str, first_name: str, last_name: str) -> None:
    """Give the contact a first and a last name, one of which may be blank, in place of the name it had."""
    contact = get(organization_id, contact_id)
    if contact is not None:
        contact.first_name, contact.last_name = first_name, last_name
        _backfill(contact, f"{first_name} {last_name}".strip())


def touch(organization_id: str, contact_id: str) -> None:
    """Record that something about the contact has changed."""
    mine = (Contact.organization == organization_id) & (Contact.id == contact_id)
    Contact.update(updated_at=now()).where(mine).execute()


def _made(organization_id: str, phone_number: str, name: str | None) -> Contact:
    contact = Contact(
        organization=organization_id,
        phone_number=phone_number,
        name=name or PLACEHOLDER_NAME,
        name_is_placeholder=name is None,
        search=_searchable(name or PLACEHOLDER_NAME, phone_number),
    )
    if _CONTACT.add(contact):
        return contact
    return Contact.get(Contact.organization == organization_id, Contact.phone_number == phone_number)


def _backfill(contact: Contact, name: str) -> Contact:
    contact.name, contact.name_is_placeholder, contact.updated_at = name, False, now()
    contact.search = _searchable(name, contact.phone_number)
    contact.save()
    return contact


def _matching(organization_id: str, search: str | None) -> Expression:
    matching = (Contact.organization == organization_id) & Contact.erased_at.is_null()
    text = (search or "").strip().casefold()
    if not text:
        return matching
    found = Contact.search.contains(text)
    number = _as_number(text)
    return matching & (found | Contact.search.contains(number) if number else found)


def _as_number(text: str) -> str | None:
    """Return `text` as it would stand in E.164 if it is a number, or a part of one, written with gaps."""
    digits = text.translate(_GAPS)
    return digits if digits != text and digits.removeprefix("+").isdecimal() else None


_GAPS = str.maketrans("", "", " -().\u00a0")


def _searchable(name: str, phone_number: str) -> str:
    # What "the same letter" is would differ between engines; ours is decided here.
    return f"{name}\n{phone_number}".casefold()
