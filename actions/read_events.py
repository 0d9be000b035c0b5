"""Reading the outbox, for consumers that cannot hold a socket."""

from dataclasses import dataclass
from typing import Any

from actions.relay import Relay
from domain.documents import load
from domain.events import StoredEvent
from persistence import outbox


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in sequence as they go over the socket, and where the reader stands.

    `next` is what to ask with next time; `oldest` is the oldest event that can be had, and when it is above the one
    asked for, what lies between is gone; `head` is the newest.
    """

    events: list[dict[str, Any]]
    next: int
    oldest: int
    head: int


# A page ends after so many characters, however few events that are; one event is always there.
_PAGE_CHARACTERS = 4 << 20
_PIECE_EVENTS = 100


async def read_events(relay: Relay, organization_id: str, *, since: int, limit: int) -> EventPage:
    """Return at most `limit` events of the organization after the sequence `since`, fewer if they are very long."""

    def unit() -> EventPage:
        found = _bounded(organization_id, since, limit)
        # Read last, so that neither can be behind what was found.
        oldest, head = outbox.oldest(organization_id), outbox.head(organization_id)
        return _page(found, since, head + 1 if oldest is None else oldest, head)

    return await relay.database.read_aside(unit)


def _bounded(organization_id: str, since: int, limit: int) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    room = _PAGE_CHARACTERS
    while len(found) < limit:
        asked = min(_PIECE_EVENTS, limit - len(found))
        piece = outbox.after(organization_id, found[-1].sequence if found else since, asked)
        for event in piece:
            room -= len(event.data)
            if room < 0 and found:
                return found
            found.append(event)
        if len(piece) < asked:
            break
    return found


def _page(found: list[StoredEvent], since: int, oldest: int, head: int) -> EventPage:
    events = [_frame(event) for event in found]
    if found:
        # Events may have been given up between two looks; what is in hand is there all the same.
        return EventPage(events, found[-1].sequence, min(oldest, found[0].sequence), head)
    # A sequence that is not ours yet (a database was restored) must not hold the reader up for ever.
    return EventPage(events, min(since, head), oldest, head)


def _frame(event: StoredEvent) -> dict[str, Any]:
    return {"type": "event", "seq": event.sequence, "event": event.name, "at": event.at, "data": load(event.data)}
