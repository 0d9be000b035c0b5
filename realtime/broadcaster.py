"""Who gets which frame. There is no I/O in this file: no socket, no database, no clock, no event loop.

What it guarantees, and why:

1. A listener is *live* or *behind*. A live one has been handed every frame its filter admits, up to its feed's head.
2. Only `advance` makes a listener live, in the same step that finds nothing left to replay. Nothing can be published
   in between, so live and replay meet without a hole.
3. A replay never passes the head: what the tail has not published yet will come from the tail, once. A listener
   that already knows more than we do (it comes from a broadcaster that is ahead of this one) waits until we get there.
4. No frame outlives the erasure of its person: it is dropped from memory, and the outbox no longer tells.
5. Sequences of an organization have no gaps. Where one shows nevertheless, listeners are told with a `gap` frame.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from domain.events import EventName, StoredEvent
from realtime import frames


class Filterable(Protocol):
    """What a filter looks at."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def contact_id(self) -> str | None: ...  # noqa: D102
    @property
    def conversation_id(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listener wants to see; None admits all."""

    events: frozenset[str] | None = None
    contact_id: str | None = None
    conversation_id: str | None = None

    def admits(self, event: Filterable) -> bool:
        """Tell whether `event` passes."""
        return (
            (self.events is None or event.name in self.events)
            and (self.contact_id is None or event.contact_id == self.contact_id)
            and (self.conversation_id is None or event.conversation_id == self.conversation_id)
        )


EVERYTHING = Filter()


# Takes frames and returns how many bytes of them it took; fewer than all is for the shell to deal with.
Send = Callable[[bytes], int]


class Listener:
    """Someone who follows one organization; the shell's subclass says how to reach it."""

    __slots__ = ("__weakref__", "feed", "filter", "is_live", "position", "send")

    def __init__(self) -> None:
        self.send: Send = len
        self.feed: Feed | None = None
        self.filter = EVERYTHING
        self.is_live = False
        self.position = 0

    @property
    def sequence(self) -> int:
        """Everything up to here was handed over, or was not admitted by the filter."""
        return self.feed.head if self.is_live and self.feed else self.position

    def reach_by(self, send: Send) -> None:
        """Have live frames handed to `send` from here on."""
        self.send = send
        if self.is_live and self.feed:
            self.feed.groups[self.filter][self] = send


L = TypeVar("L", bound=Listener)


class Delivery(NamedTuple, Generic[L]):
    """Joined frames, and the listeners that get them; read it before changing anything in the broadcaster.

    Where `listeners` is a dictionary, how to reach each stands beside it. A listener that cannot take them is rewound
    to `after`, once the pass is over.
    """

    listeners: Collection[L]
    data: bytes
    frames: int
    after: int


@dataclass(frozen=True, slots=True)
class Below:
    """A listener needs events older than the ring holds: those after `after`, up to and including `up_to`."""

    organization_id: str
    after: int
    up_to: int


class _Held(NamedTuple):
    sequence: int
    name: str
    contact_id: str | None
    conversation_id: str | None
    frame: bytes


class Feed:
    """One organization: its newest sequence, the frames still in memory, and who follows.

    A cold feed has had no listener for a while: it counts, but builds and keeps no frames.
    """

    __slots__ = (
        "ahead",
        "groups",
        "head",
        "is_filled",
        "is_idle",
        "is_warm",
        "members",
        "organization_id",
        "ring",
        "size",
    )

    def __init__(self, organization_id: str, head: int) -> None:
        self.organization_id = organization_id
        self.head = head
        self.ring: deque[_Held] = deque()
        self.size = 0
        self.is_warm = False
        self.is_filled = False
        self.is_idle = False
        self.members = 0
        # In the order they came: what belongs to them lies in memory in that order as well.
        # How to reach them stands beside them, because to look it up in each costs more than the rest of a write.
        self.groups: dict[Filter, dict[Listener, Send]] = {}
        self.ahead: set[Listener] = set()

    @property
    def floor(self) -> int:
        """The ring holds everything after this sequence, up to the head."""
        return self.head - len(self.ring)

    def forget(self) -> None:
        """Drop frames that may tell of somebody who was erased; the outbox has them without.

        A filling that is under way may have been read before the erasure, so it comes too late.
        """
        self.ring.clear()
        self.size = 0
        self.is_filled = True

    def cool(self) -> None:
        """Forget the frames."""
        self.ring.clear()
        self.size = 0
        self.is_warm = self.is_filled = False


class Broadcaster(Generic[L]):
    """Feeds and their listeners; `start` it with the heads before anything else."""

    def __init__(self, *, ring_events: int = 2000, ring_bytes: int = 2 << 20, page_bytes: int = 64 << 10) -> None:
        self._ring_events = ring_events
        self._ring_bytes = ring_bytes
        self._page_bytes = page_bytes
        self._feeds: dict[str, Feed] = {}

    # What the tail calls.

    def start(self, heads: Mapping[str, int]) -> None:
        """Take the newest sequence of every organization, as the tail's cursor stands."""
        for organization_id, head in heads.items():
            feed = self._feed(organization_id)
            feed.head = max(feed.head, head)

    def head(self, organization_id: str) -> int:
        """Return the newest sequence published for the organization; 0 when there was none."""
        feed = self._feeds.get(organization_id)
        return feed.head if feed else 0

    def publish(self, events: Iterable[StoredEvent]) -> list[Delivery[L]]:
        """Take committed events, in order within each organization, and say what to write to whom.

        Events at or below the head are repeats and are ignored.
        """
        by_organization: dict[str, list[StoredEvent]] = {}
        for event in events:
            by_organization.setdefault(event.organization_id, []).append(event)
        return [
            delivery
            for organization_id, batch in by_organization.items()
            for delivery in self._publish(self._feed(organization_id), batch)
        ]

    # What the shell calls for a listener.

    def join(self, listener: L, organization_id: str, wanted: Filter = EVERYTHING, since: int | None = None) -> None:
        """Let `listener` follow the organization after `since`, or from now on; `advance` then makes it live."""
        feed = self._feed(organization_id)
        feed.members += 1
        feed.is_warm, feed.is_idle = True, False
        listener.feed, listener.filter, listener.is_live = feed, wanted, False
        listener.position = feed.head if since is None else since

    def advance(self, listener: L) -> bytes | Below | None:
        """Take the next step towards live.

        Returns:
            frames to write (perhaps none of a page were admitted: empty), or what must be read from the outbox and
            given to `supply`, or None: the listener is live, or gone.
        """
        feed = listener.feed
        if feed is None or listener.is_live:
            return None
        if listener.position >= feed.head:
            self._attach(feed, listener)
            return None
        if listener.position < feed.floor:
            return Below(feed.organization_id, listener.position, feed.floor)
        return self._page(feed, listener)

    def supply(self, listener: L, below: Below, events: Sequence[StoredEvent]) -> bytes:
        """Turn what the outbox holds of `below`, from its beginning, into frames; says `gap` for what is gone."""
        if listener.feed is None or listener.is_live or listener.position != below.after:
            return b""
        first = events[0].sequence if events else below.up_to + 1
        parts = [frames.gap(below.after, first)] if first > below.after + 1 else []
        parts += [frames.event(event) for event in events if listener.filter.admits(event)]
        listener.position = events[-1].sequence if events else below.up_to
        return b"".join(parts)

    def rewind(self, listener: L, since: int) -> None:
        """Take `listener` back (or forward) to `since`; it is behind until `advance` says otherwise."""
        self._detach(listener)
        listener.position = since

    def hold(self, listener: L) -> None:
        """Stop handing frames to a listener that cannot keep up; `advance` takes it on from where it is."""
        position = listener.sequence
        self._detach(listener)
        listener.position = position

    def subscribe(self, listener: L, wanted: Filter) -> None:
        """Replace the listener's filter, from here on."""
        if was_attached := listener.is_live or (listener.feed is not None and listener in listener.feed.ahead):
            self.hold(listener)
        listener.filter = wanted
        if was_attached and listener.feed:
            self._attach(listener.feed, listener)

    def leave(self, listener: L) -> None:
        """Forget `listener`; leaving twice is no harm."""
        self._detach(listener)
        if listener.feed:
            listener.feed.members -= 1
            listener.feed = None

    # What the shell calls now and then.

    def unfilled(self, organization_id: str) -> Below | None:
        """Say which events `fill` would take; None when it had its turn since the organization got listeners."""
        feed = self._feed(organization_id)
        room = self._ring_events - len(feed.ring)
        if feed.ring:  # older events are taken to be as long as those that are there
            room = min(room, (self._ring_bytes - feed.size) * len(feed.ring) // feed.size)
        if not feed.is_warm or feed.is_filled or feed.floor == 0 or room <= 0:
            return None
        return Below(organization_id, max(0, feed.floor - room), feed.floor)

    def fill(self, organization_id: str, events: Sequence[StoredEvent]) -> None:
        """Put older events under the ring, as many as fit; those that do not end where it begins are not used."""
        feed = self._feed(organization_id)
        if feed.is_filled:
            return
        feed.is_filled = True
        for event in reversed(events):
            held = _hold(event)
            fits = len(feed.ring) < self._ring_events and feed.size + len(held.frame) <= self._ring_bytes
            if not feed.is_warm or event.sequence != feed.floor or not fits:
                return
            feed.ring.appendleft(held)
            feed.size += len(held.frame)

    def cool(self) -> None:
        """Forget the frames of every organization that had no listener since the last call either."""
        for feed in self._feeds.values():
            if feed.is_warm and not feed.members:
                if feed.is_idle:
                    feed.cool()
                feed.is_idle = True

    # Inside.

    def _feed(self, organization_id: str) -> Feed:
        feed = self._feeds.get(organization_id)
        if feed is None:
            feed = self._feeds[organization_id] = Feed(organization_id, 0)
        return feed

    def _publish(self, feed: Feed, batch: list[StoredEvent]) -> list[Delivery[L]]:
        deliveries: list[Delivery[L]] = []
        run: list[StoredEvent] = []
        for event in batch:
            expected = (run[-1].sequence if run else feed.head) + 1
            if event.sequence < expected:
                continue
            if event.sequence > expected:
                deliveries += self._publish_run(feed, run) + self._admit_hole(feed, event.sequence)
                run = []
            run.append(event)
        return deliveries + self._publish_run(feed, run)

    def _publish_run(self, feed: Feed, run: list[StoredEvent]) -> list[Delivery[L]]:
        after = feed.head
        feed.head += len(run)
        if not run or not feed.is_warm:
            return []
        if any(event.name == EventName.CONTACT_ERASED for event in run):
            feed.forget()
        held = [_hold(event) for event in run]
        feed.ring.extend(held)
        feed.size += sum(len(entry.frame) for entry in held)
        self._trim(feed)
        # Groups are handed out as they are, except where listeners are about to be added to them.
        deliveries: list[Delivery[L]] = [
            Delivery(list(group) if feed.ahead else group, b"".join(admitted), len(admitted), after)  # type: ignore[arg-type]
            for wanted, group in feed.groups.items()
            if (admitted := [entry.frame for entry in held if wanted.admits(entry)])
        ]
        return deliveries + self._catch_ahead(feed, held)

    def _catch_ahead(self, feed: Feed, held: list[_Held]) -> list[Delivery[L]]:
        deliveries: list[Delivery[L]] = []
        for listener in [each for each in feed.ahead if each.position <= feed.head]:
            new = [e.frame for e in held if e.sequence > listener.position and listener.filter.admits(e)]
            if new:
                deliveries.append(Delivery([listener], b"".join(new), len(new), listener.position))  # type: ignore[list-item]
            self._attach(feed, listener)
        return deliveries

    def _admit_hole(self, feed: Feed, first: int) -> list[Delivery[L]]:
        lost, after = frames.gap(feed.head, first), feed.head
        feed.ring.clear()
        feed.size = 0
        feed.head = first - 1
        told = {after: [listener for group in feed.groups.values() for listener in group]}
        for listener in [each for each in feed.ahead if each.position <= feed.head]:
            if listener.position < feed.head:
                told.setdefault(listener.position, []).append(listener)
            self._attach(feed, listener)
        return [Delivery(who, lost, 1, after) for after, who in told.items() if who]  # type: ignore[arg-type]

    def _trim(self, feed: Feed) -> None:
        ring = feed.ring
        while ring and (len(ring) > self._ring_events or feed.size > self._ring_bytes):
            feed.size -= len(ring.popleft().frame)

    def _page(self, feed: Feed, listener: L) -> bytes:
        parts: list[bytes] = []
        size = 0
        for entry in islice(feed.ring, listener.position - feed.floor, None):
            listener.position = entry.sequence
            if listener.filter.admits(entry):
                parts.append(entry.frame)
                size += len(entry.frame)
                if size >= self._page_bytes:
                    break
        return b"".join(parts)

    def _attach(self, feed: Feed, listener: Listener) -> None:
        feed.ahead.discard(listener)
        if listener.position > feed.head:
            feed.ahead.add(listener)
        else:
            listener.is_live = True
            feed.groups.setdefault(listener.filter, {})[listener] = listener.send

    def _detach(self, listener: Listener) -> None:
        feed = listener.feed
        if feed is None:
            return
        feed.ahead.discard(listener)
        if listener.is_live:
            listener.is_live = False
            group = feed.groups[listener.filter]
            group.pop(listener, None)
            if not group:
                del feed.groups[listener.filter]


def _hold(event: StoredEvent) -> _Held:
    return _Held(event.sequence, event.name, event.contact_id, event.conversation_id, frames.event(event))
