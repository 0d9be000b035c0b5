"""Reading the outbox, for consumers that cannot hold a socket."""

import asyncio
from dataclasses import dataclass, replace

from actions.relay import Relay
from domain.epochs import Standing
from domain.events import StoredEvent
from domain.filters import EVERYTHING, Filter
from domain.gaps import Gap, Reason, reason_below
from persistence import outbox

# A page ends after so many characters, however few events that are; one event is always there.
_PAGE_CHARACTERS = 4 << 20
_PIECE_EVENTS = 100
_MOST_READ = 5000  # events that are looked at for one page, however few of them the filter admits
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events after the sequence `since`, at most `limit`; `epoch` is of the log `since` belongs to, if given."""

    since: int
    limit: int
    epoch: str | None = None
    filter: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in sequence, and where the reader stands.

    `next` is what to ask with next time. `oldest` is the oldest event that can be had, `head` is the newest, both of
    the log `epoch`. `gap` is what is missing before the first event.
    """

    events: list[StoredEvent]
    next: int
    oldest: int
    head: int
    epoch: str
    gap: Gap | None


@dataclass(slots=True)
class _Passage:
    """What was found of a log: the events that are admitted, and the last sequence up to which it was looked at."""

    admitted: list[StoredEvent]
    up_to: int
    gap_before: int | None = None  # the first sequence that is there, if something is missing before it


async def read_events(relay: Relay, organization_id: str, wanted: Wanted) -> EventPage:
    """Return the wanted events, fewer than the limit if they are very long; a page ends before a hole."""
    return await relay.database.read_aside(lambda: _read(organization_id, wanted))


async def await_events(relay: Relay, organization_id: str, wanted: Wanted, seconds: float) -> EventPage:
    """Return the wanted events as soon as there is one or something is missing, at the latest after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with relay.new_events.expected(organization_id, relay) as news:
        while True:
            news.clear()
            page = await read_events(relay, organization_id, wanted)
            if page.events or page.gap or not news.may_come or loop.time() >= deadline:
                return page
            has_more = wanted.since < page.next < page.head
            wanted = replace(wanted, since=page.next)
            if not has_more:
                await news.wait(deadline - loop.time())


def _read(organization_id: str, wanted: Wanted) -> EventPage:
    for _ in range(_TRIES):
        before = _standing(organization_id)
        page = _page(organization_id, wanted, before.epoch)
        if page.epoch == before.epoch:
            break
    return page


def _page(organization_id: str, wanted: Wanted, epoch: str) -> EventPage:
    is_other = wanted.epoch not in (None, epoch)
    found = _Passage([], wanted.since) if is_other else _passage(organization_id, wanted)
    # Read last, so that neither can be behind what was found.
    oldest, standing = outbox.oldest(organization_id), _standing(organization_id)
    head, from_here = standing.sequence, standing.sequence + 1
    gap, up_to = None, found.up_to
    if is_other or wanted.since > head:
        gap, up_to = Gap(wanted.since, from_here, Reason.EPOCH if is_other else Reason.AHEAD), head
    elif found.gap_before is not None:
        gap = Gap(wanted.since, found.gap_before, reason_below(wanted.since, oldest))
    elif up_to == wanted.since < head and not outbox.after(organization_id, up_to, 1):
        gap, up_to = Gap(wanted.since, from_here, reason_below(wanted.since, oldest)), head
    # Events may have been pruned between two looks; what is in hand is there all the same.
    oldest = min([from_here if oldest is None else oldest, *(event.sequence for event in found.admitted[:1])])
    return EventPage(found.admitted, up_to, oldest, head, standing.epoch, gap)


def _passage(organization_id: str, wanted: Wanted) -> _Passage:
    """Read on until enough is admitted, the page is full, or something is missing."""
    passage, room, most = _Passage([], wanted.since), _PAGE_CHARACTERS, _MOST_READ
    while most > 0:
        asked = min(_PIECE_EVENTS, most, wanted.limit if wanted.filter == EVERYTHING else _PIECE_EVENTS)
        piece = outbox.after(organization_id, passage.up_to, asked)
        most -= asked
        for event in piece:
            if event.sequence > passage.up_to + 1:
                if passage.up_to > wanted.since:
                    return passage
                passage.gap_before = event.sequence
            if wanted.filter.admits(event):
                room -= len(event.data)
                if len(passage.admitted) == wanted.limit or (room < 0 and passage.admitted):
                    return passage
                passage.admitted.append(event)
            passage.up_to = event.sequence
        if len(piece) < asked or len(passage.admitted) == wanted.limit:
            break
    return passage


def _standing(organization_id: str) -> Standing:
    standing = outbox.standing(organization_id)
    if standing is None:
        raise LookupError(f"no organization {organization_id}")
    return standing
