"""Reading contacts: a list, one of them, their notes and their whole story."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from actions import descriptions
from actions.read_calls import described
from actions.relay import Relay
from actions.tool_calls import normalise
from domain.errors import NotFound
from domain.positions import Position, to_position
from persistence import contact_emails, contact_notes, contacts, timeline
from persistence.models import Contact

# Rows of a list, newest first, each with its position.
Found = list[tuple[Position, Any]]


@dataclass(frozen=True, slots=True)
class ContactList:
    """One page of contacts, newest first, and how many there are altogether."""

    contacts: list[dict[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a list, newest first, and the cursor of the next page, None on the last."""

    entries: list[dict[str, Any]]
    next: str | None


async def list_contacts(
    relay: Relay, organization_id: str, search: str | None, *, number: int, size: int
) -> ContactList:
    """Return page `number` (from 1) of the contacts whose name or number contains `search`."""

    def unit() -> ContactList:
        total = contacts.count(organization_id, search)
        page = contacts.page(organization_id, search, total=total, offset=(number - 1) * size, limit=size)
        emails = contact_emails.of(organization_id, [contact.id for contact in page])
        return ContactList([descriptions.contact(contact, emails.get(contact.id, [])) for contact in page], total)

    return await relay.database.read(unit)


async def read_contact(relay: Relay, organization_id: str, contact_id: str) -> dict[str, Any]:
    """Return one contact.

    Raises:
        NotFound: when the organization has no such contact.
    """

    def unit() -> dict[str, Any]:
        contact = existing(organization_id, contact_id)
        emails = contact_emails.of(organization_id, [contact_id])
        return descriptions.contact(contact, emails.get(contact_id, []))

    return await relay.database.read(unit)


async def find_contact_by_number(relay: Relay, organization_id: str, number: str) -> dict[str, Any]:
    """Return the contact with that number, in whatever form it is written.

    Raises:
        NotFound: when the organization has no such contact.
    """

    def unit() -> dict[str, Any]:
        e164 = normalise(organization_id, number)
        found = contacts.by_phone(organization_id, e164) if e164 else None
        if found is None:
            raise NotFound("Contact not found")
        emails = contact_emails.of(organization_id, [found.id])
        return descriptions.contact(found, emails.get(found.id, []))

    return await relay.database.read(unit)


async def list_notes(
    relay: Relay, organization_id: str, contact_id: str, *, limit: int, offset: int = 0, cursor: str | None = None
) -> tuple[Page, int]:
    """Return at most `limit` notes about the contact after the cursor or the offset, and how many there are in all.

    Raises:
        NotFound: when the organization has no such contact.
        InvalidRequest: when the cursor is none of ours.
    """

    def find(after: Position | None, most: int) -> Found:
        whose = existing(organization_id, contact_id).id
        if after is None:
            notes = contact_notes.numbered(organization_id, whose, offset, most)
        else:
            notes = contact_notes.page(organization_id, whose, after, most)
        return [(Position(note.created_at, note.id), note) for note in notes]

    def describe(notes: list[Any]) -> list[dict[str, Any]]:
        return [descriptions.note(note) for note in notes]

    page = await page_after(relay.database.read_aside, cursor, limit, find, describe)
    return page, await relay.database.read_aside(lambda: contact_notes.count(organization_id, contact_id))


async def read_timeline(
    relay: Relay, organization_id: str, contact_id: str, *, limit: int, cursor: str | None = None
) -> Page:
    """Return at most `limit` things that happened with the contact, after the cursor.

    Raises:
        NotFound: when the organization has no such contact.
        InvalidRequest: when the cursor is none of ours.
    """

    def find(after: Position | None, most: int) -> Found:
        entries = timeline.page(organization_id, existing(organization_id, contact_id).id, after, most)
        return [(entry[1], entry) for entry in entries]

    def describe(entries: list[Any]) -> list[dict[str, Any]]:
        calls = described(organization_id, [row for kind, _, row in entries if kind == "call"])
        by_id = {call["_id"]: call for call in calls}
        return [_entry(entry, by_id) for entry in entries]

    return await page_after(relay.database.read_aside, cursor, limit, find, describe)


def existing(organization_id: str, contact_id: str) -> Contact:
    """Return the organization's contact, in a unit.

    Raises:
        NotFound: when it has none of that id.
    """
    found = contacts.get(organization_id, contact_id)
    if found is None:
        raise NotFound("Contact not found")
    return found


async def page_after(
    read: Callable[[Callable[[], Page]], Awaitable[Page]],
    cursor: str | None,
    limit: int,
    find: Callable[[Position | None, int], Found],
    describe: Callable[[list[Any]], list[dict[str, Any]]],
) -> Page:
    """Return at most `limit` entries after the cursor; `find` and `describe` run in the unit that `read` runs.

    Raises:
        InvalidRequest: when the cursor is none of ours.
    """
    after = to_position(cursor) if cursor else None

    def unit() -> Page:
        # One more than is shown tells whether there is a next page.
        found = find(after, limit + 1)
        shown = found[:limit]
        return Page(describe([row for _, row in shown]), str(shown[-1][0]) if len(found) > limit else None)

    return await read(unit)


_DESCRIBED: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "note": ("note", descriptions.note),
    "message": ("message", descriptions.message),
    "transfer_request": ("transferRequest", descriptions.transfer_request),
}


def _entry(entry: timeline.Entry, calls: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kind, position, row = entry
    if kind == "call":
        told = {"call": calls[position.id]}
    else:
        name, describe = _DESCRIBED[kind]
        told = {name: describe(row)}
    return {"kind": kind, "id": position.id, "at": position.at, **told}
