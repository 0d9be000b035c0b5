"""Email addresses of contacts. They are only ever added to, so the history stays."""

from collections.abc import Collection

from persistence import pages
from persistence.models import ContactEmail


def of(organization_id: str, contact_ids: Collection[str]) -> dict[str, list[ContactEmail]]:
    """Return the addresses of each of these contacts that has one, the primary one first, then oldest first."""
    if not contact_ids:
        return {}
    query = ContactEmail.select().where(pages.among(ContactEmail, organization_id, ContactEmail.contact, contact_ids))
    found: dict[str, list[ContactEmail]] = {}
    for row in sorted(query, key=lambda one: (not one.is_primary, one.created_at, one.id)):
        found.setdefault(row.contact_id, []).append(row)
    return found


def append(organization_id: str, contact_id: str, address: str) -> bool:
    """Add the address, unless the contact has it in whatever case; return whether it was added.

    It becomes primary if no other one is.
    """
    known = of(organization_id, [contact_id]).get(contact_id, [])
    if address.casefold() in {one.address.casefold() for one in known}:
        return False
    is_primary = not any(one.is_primary for one in known)
    ContactEmail.create(organization=organization_id, contact=contact_id, address=address, is_primary=is_primary)
    return True
