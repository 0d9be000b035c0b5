"""Who is there to take a call: users say so with a heartbeat, and are gone without one."""

from dataclasses import dataclass, field

from actions.announcements import availability_changed
from actions.relay import Relay
from domain.errors import Unauthenticated
from domain.events import Event
from domain.phones import to_e164
from domain.statuses import UserStatus
from domain.times import later, now
from persistence import availability, organizations, outbox, users

# A heartbeat is due every ten seconds; two may be lost. Listeners hear of the end within a minute, because the
# housekeeping looks every twenty.
ONLINE_SECONDS = 30

_ROWS = 200


@dataclass(frozen=True, slots=True)
class Availability:
    """What a user said; `online_until` is when it ends by itself.

    Calls for the user are transferred to `transfer_number`, in E.164.
    """

    user_id: str
    is_online: bool
    is_available: bool
    online_until: str
    transfer_number: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Available:
    """How many people of an organization are there, and how many of them take calls."""

    online: int
    available: int


async def set_availability(
    relay: Relay,
    organization_id: str,
    user_id: str,
    *,
    is_available: bool,
    is_online: bool = True,
    transfer_number: str | None = "",
) -> Availability:
    """Note that the user is there until the next heartbeat is overdue; tell the listeners if something changed.

    `transfer_number` is read as a number of the organization's region. None removes the one that was given before,
    and "" keeps it.

    Raises:
        Unauthenticated: if the user was disabled or removed meanwhile.
        InvalidRequest: if `transfer_number` cannot be a phone number.
    """

    def unit() -> Availability:
        user = users.in_organization(organization_id, user_id)
        if user is None or user.status != UserStatus.ACTIVE.value:
            raise Unauthenticated
        before = availability.get(organization_id, user_id)
        number = _number(organization_id, transfer_number) if transfer_number else transfer_number
        if number == "":
            number = before.transfer_number if before else None
        said = Availability(user_id, is_online, is_available, later(ONLINE_SECONDS if is_online else 0), number)
        columns = ("is_online", "is_available", "online_until", "transfer_number")
        availability.put(organization_id, user_id, {column: getattr(said, column) for column in columns})
        told = (before.is_online, before.is_available) if before else (False, False)
        if told != (is_online, is_available):
            outbox.append(organization_id, [_availability_changed(organization_id, said)])
        return said

    return await relay.database.write(unit, of=organization_id)


async def count_available(relay: Relay, organization_id: str) -> Available:
    """Return how many people are there now."""
    return Available(*await relay.database.read(lambda: availability.counts(organization_id, now())))


async def end_lapsed(relay: Relay) -> int:
    """Tell the listeners of users whose heartbeat ended; return how many there were."""
    at, total = now(), 0
    for row in await relay.database.read(lambda: availability.lapsed(at, _ROWS)):
        organization_id, user_id, is_available = row.organization_id, row.user_id, row.is_available
        said = Availability(user_id, False, is_available, row.online_until)

        def unit(of: str = organization_id, said: Availability = said) -> int:
            if not availability.end(of, said.user_id, at):
                return 0
            outbox.append(of, [_availability_changed(of, said)])
            return 1

        total += await relay.database.write(unit, of=organization_id)
    return total


def leave(organization_id: str, user_id: str) -> None:
    """Delete what a user said who is removed, in a unit, and tell the listeners if the user was there."""
    known = availability.get(organization_id, user_id)
    if known is None:
        return
    availability.forget(organization_id, user_id)
    if known.is_online:
        gone = Availability(user_id, False, False, now())
        outbox.append(organization_id, [_availability_changed(organization_id, gone)])


def _number(organization_id: str, given: str) -> str:
    organization = organizations.get(organization_id)
    return to_e164(given, organization.default_region if organization else None)


def _availability_changed(organization_id: str, said: Availability) -> Event:
    online, available = availability.counts(organization_id, now())
    return availability_changed(
        said.user_id,
        is_online=said.is_online,
        is_available=said.is_available,
        online_count=online,
        available_count=available,
    )
