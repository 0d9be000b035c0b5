"""Correcting the contact of a caller in the middle of a call: names and email addresses, never the number.

Addresses are only added, and the first one stays primary. A name replaces the one before; listeners are told both. What
only stands for an unknown name replaces nothing.
"""

from dataclasses import dataclass, field

from actions.announcements import contact_updated
from actions.relay import Relay
from actions.tool_calls import find_contact, fingerprint
from domain.errors import InvalidRequest, Speakable
from domain.lengths import LENGTHS
from domain.names import first_and_last, is_placeholder
from domain.texts import one_line
from persistence import contact_emails, contacts, outbox, tool_invocations
from persistence.models import Contact

TOOL = "update-contact"

_UNCHANGED = "the contact was not changed"


@dataclass(frozen=True, slots=True)
class ContactChange:
    """What the agent heard of the caller; None leaves a field as it is."""

    phone_number: str = field(repr=False)
    first_name: str | None = field(default=None, repr=False)
    last_name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    conversation_id: str | None = None


async def update_contact(relay: Relay, organization_id: str, change: ContactChange) -> list[str]:
    """Change the contact once and tell the listeners; return the fields that were set, in the contract's words.

    Raises:
        Speakable: if nothing usable is given, or nobody has that number.
    """
    given = _given(change)

    def unit() -> None:
        contact = find_contact(organization_id, change.phone_number, change.conversation_id, otherwise=_UNCHANGED)
        same_call = fingerprint(TOOL, change.conversation_id, contact.number, *map(given.get, _FIELDS))

        def act() -> str:
            _write(organization_id, contact.id, given, change.conversation_id)
            return contact.id

        tool_invocations.once(organization_id, TOOL, same_call, relay.rules.tool_replay, act)

    await relay.database.write(unit, of=organization_id)
    return [name for name in _FIELDS if name in given]


_FIELDS = ("firstName", "lastName", "email")


def _given(change: ContactChange) -> dict[str, str]:
    """Return the fields that are to be set, by their names in the contract."""
    said = {
        "firstName": _line(change.first_name, "first name", LENGTHS["firstName"]),
        "lastName": _line(change.last_name, "last name", LENGTHS["lastName"]),
        "email": _line(change.email, "email address", LENGTHS["email"]),
    }
    given = {name: text for name, text in said.items() if text}
    if not given:
        raise Speakable(f"Neither a name nor an email address was given, so {_UNCHANGED}.")
    for standing_in in (("firstName", "lastName"), ("firstName",)):
        if is_placeholder(" ".join(given.get(name, "") for name in standing_in)):
            given = {name: text for name, text in given.items() if name not in standing_in}
    if not given:
        raise Speakable(f"That stands for an unknown name, so {_UNCHANGED}.")
    return given


def _line(text: str | None, what: str, longest: int) -> str | None:
    if text is None or not text.strip():
        return None
    try:
        return one_line(text, what, longest)
    except InvalidRequest:
        raise Speakable(f"The {what} is not valid, so {_UNCHANGED}.") from None


def _write(organization_id: str, contact_id: str, given: dict[str, str], conversation_id: str | None) -> None:
    before = _names(contacts.get(organization_id, contact_id))
    first, last = given.get("firstName", before[0]), given.get("lastName", before[1])
    is_renamed = (first, last) != before
    if is_renamed:
        contacts.set_names(organization_id, contact_id, first, last)
    is_added = "email" in given and contact_emails.append(organization_id, contact_id, given["email"])
    if is_added:
        contacts.touch(organization_id, contact_id)
    contact = contacts.get(organization_id, contact_id)
    if contact is None or not (is_renamed or is_added):
        return
    told = contact_updated(
        contact,
        [name for name in _FIELDS if name in given],
        names=_names(contact),
        before=before,
        emails=contact_emails.of(organization_id, [contact_id]).get(contact_id, []),
        tool=TOOL,
        conversation_id=conversation_id or None,
    )
    outbox.append(organization_id, [told])


def _names(contact: Contact | None) -> tuple[str, str]:
    if contact is None or contact.name_is_placeholder:
        return "", ""
    return first_and_last(contact.name, contact.first_name, contact.last_name)
