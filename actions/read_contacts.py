"""Reading contacts: a list, one of them, their notes and their whole story."""

from dataclasses import dataclass

from actions.paging import Page, page_after
from actions.read_calls import ShownCall, shown_calls
from actions.relay import Relay
from actions.tool_calls import normalise
from domain.errors import NotFound
from domain.positions import Position
from persistence import contact_emails, contact_notes, contacts, timeline
from persistence.models import Call, Contact, ContactEmail, ContactNote, Message, TransferRequest


@dataclass(frozen=True, slots=True)
class ShownContact:
    """A contact and its email addresses, the primary one first."""

    row: Contact
    emails: list[ContactEmail]


@dataclass(frozen=True, slots=True)
class ContactList:
    """One page of contacts, newest first, and how many there are altogether."""

    contacts: list[ShownContact]
    total: int


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something that happened with a contact: `id` is its row's, `at` is when it happened."""

    id: str
    at: str
    what: ContactNote | ShownCall | Message | TransferRequest


async def list_contacts(
    relay: Relay, organization_id: str, search: str | None, *, number: int, size: int
) -> ContactList:
    """Return page `number` (from 1) of the contacts whose name or number contains `search`."""

    def unit() -> ContactList:
        total = contacts.count(organization_id, search)
        page = contacts.page(organization_id, search, total=total, offset=(number - 1) * size, limit=size)
        emails = contact_emails.of(organization_id, [contact.id for contact in page])
        return ContactList([ShownContact(contact, emails.get(contact.id, [])) for contact in page], total)

    return await relay.database.read(unit)


async def read_contact(relay: Relay, organization_id: str, contact_id: str) -> ShownContact:
    """Return one contact.

    Raises:
        NotFound: when the organization has no such contact.
    """
    return await relay.database.read(lambda: _shown(organization_id, existing(organization_id, contact_id)))


async def find_contact_by_number(relay: Relay, organization_id: str, number: str) -> ShownContact:
    """Return the contact with that number, in whatever form it is written.

    Raises:
        NotFound: when the organization has no such contact.
    """

    def unit() -> ShownContact:
        e164 = normalise(organization_id, number)
        found = contacts.by_phone(organization_id, e164) if e164 else None
        if found is None:
            raise NotFound("Contact not found")
        return _shown(organization_id, found)

    return await relay.database.read(unit)


async def list_notes(
    relay: Relay, organization_id: str, contact_id: str, *, limit: int, offset: int = 0, cursor: str | None = None
) -> tuple[Page[ContactNote], int]:
    """Return at most `limit` notes about the contact after the cursor or the offset, and how many there are in all.

    Raises:
        NotFound: when the organization has no such contact.
        InvalidRequest: when the cursor is none of ours.
    """

    def find(after: Position | None, most: int) -> list[tuple[Position, ContactNote]]:
        whose = existing(organization_id, contact_id).id
        if after is None:
            notes = contact_notes.numbered(organization_id, whose, offset, most)
        else:
            notes = contact_notes.page(organization_id, whose, after, most)
        return [(Position(note.created_at, note.id), note) for note in notes]

    page = await page_after(relay.database.read_aside, cursor, limit, find)
    return page, await relay.database.read_aside(lambda: contact_notes.count(organization_id, contact_id))


async def read_timeline(
    relay: Relay, organization_id: str, contact_id: str, *, limit: int, cursor: str | None = None
) -> Page[TimelineEntry]:
    """Return at most `limit` things that happened with the contact, after the cursor.

    Raises:
        NotFound: when the organization has no such contact.
        InvalidRequest: when the cursor is none of ours.
    """

    def find(after: Position | None, most: int) -> list[tuple[Position, TimelineEntry]]:
        found = timeline.page(organization_id, existing(organization_id, contact_id).id, after, most)
        rows = [row for _, row in found if isinstance(row, Call)]
        calls = {call.row.id: call for call in shown_calls(organization_id, rows)}
        return [
            (position, TimelineEntry(position.id, position.at, calls[row.id] if isinstance(row, Call) else row))
            for position, row in found
        ]

    return await page_after(relay.database.read_aside, cursor, limit, find)


def existing(organization_id: str, contact_id: str) -> Contact:
    """Return the organization's contact, in a unit.

    Raises:
        NotFound: when it has none of that id.
    """
    found = contacts.get(organization_id, contact_id)
    if found is None:
        raise NotFound("Contact not found")
    return found


def _shown(organization_id: str, contact: Contact) -> ShownContact:
    return ShownContact(contact, contact_emails.of(organization_id, [contact.id]).get(contact.id, []))
