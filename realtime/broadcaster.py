"""Who gets which frame. There is no I/O in this file: no socket, no database, no clock, no event loop.

What it guarantees, and why:

1. A listener is *live* or *behind*. Live ones stand in rows of those who want the same and have the same: everybody in
   a row has been handed every frame the filter admits, up to the row's position.
2. Only `advance` makes a listener live, in the same step that finds nothing left to replay. Nothing can be published
   in between, so live and replay meet without a hole.
3. A replay never passes the head: what the tail has not published yet will come from the tail, once. A listener
   that already knows more than we do (it comes from a broadcaster that is ahead of this one) waits until we get there.
4. No frame outlives the erasure of its person: it is dropped from memory, and the outbox no longer tells. Only what a
   round that is under way has yet to hand over still goes, before the erasure, as it was committed.
5. Sequences of an organization have no gaps. Where one shows nevertheless, in what is published or replayed, listeners
   are told with a `gap` frame exactly there.
6. Everything here belongs to one log, which its epoch identifies. When the log was replaced, `restart` drops all of it,
   and what was read from the log before, and comes later, is not used.

`publish` writes to nobody: it makes rows due, and `deliver` hands over one row after the other, round and round. What
is published while a round is under way goes along, in one write, to those it has not come to yet; so nobody waits
longer than a round, and the fuller the day, the more is joined.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from domain.epochs import Standing
from domain.events import EventName, StoredEvent
from domain.filters import EVERYTHING, Filter
from domain.gaps import Gap, Reason, steps
from realtime import frames
from realtime.ring import Bounds, Held, Ring

# Takes frames and returns how many bytes of them it took; fewer than all is for the shell to deal with.
Send = Callable[[bytes], int]


class Listener:
    """Someone who follows one organization; the shell's subclass says how to reach it."""

    __slots__ = ("__weakref__", "feed", "filter", "position", "row", "send")

    def __init__(self) -> None:
        self.send: Send = len
        self.feed: Feed | None = None
        self.filter = EVERYTHING
        self.row: Row | None = None
        self.position = 0

    @property
    def is_live(self) -> bool:
        """Whether what is published will be handed over without being asked for."""
        return self.row is not None

    @property
    def sequence(self) -> int:
        """Everything up to here was handed over, or was not admitted by the filter."""
        return self.row.position if self.row else self.position

    def reach_by(self, send: Send) -> None:
        """Have live frames handed to `send` from here on."""
        self.send = send
        if self.row:
            self.row.members[self] = send


L = TypeVar("L", bound=Listener)


class Delivery(NamedTuple, Generic[L]):
    """Joined frames, and the listeners that get them, with how to reach each; written before anything else is asked.

    A listener that cannot take them is rewound to `after`. The oldest of the events is of the time `at`.
    """

    listeners: Mapping[L, Send]
    data: bytes
    frames: int
    after: int
    at: str


@dataclass(frozen=True, slots=True)
class Below:
    """A listener needs events older than the ring holds: those after `after`, up to and including `up_to`."""

    organization_id: str
    epoch: str
    after: int
    up_to: int


class _Joined(NamedTuple):
    data: bytes
    frames: int
    up_to: int
    at: str


class Row:
    """Some of an organization's live listeners, who want the same and have everything up to the same sequence.

    How to reach them stands beside them, because to look it up in each costs more than the rest of a write. They stand
    in the order they came: what belongs to them lies in memory in that order as well.
    """

    __slots__ = ("filter", "members", "position")

    def __init__(self, wanted: Filter, position: int) -> None:
        self.filter = wanted
        self.position = position
        self.members: dict[Listener, Send] = {}


class Feed:
    """One organization: its newest sequence, the frames still in memory, and who follows.

    The ring is kept for those who come back. What some row has yet to be handed is in `fresh`; such rows are `due`. A
    cold feed has had no listener for a while: it counts, but builds and keeps no frames.
    """

    __slots__ = (
        "ahead",
        "due",
        "epoch",
        "fresh",
        "head",
        "is_filled",
        "is_idle",
        "is_warm",
        "joined",
        "members",
        "organization_id",
        "page",
        "ring",
        "rows",
    )

    def __init__(self, organization_id: str, bounds: Bounds) -> None:
        self.organization_id = organization_id
        self.head = 0
        self.epoch = ""
        self.ring = Ring(bounds)
        self.is_warm = False
        self.is_filled = False
        self.is_idle = False
        self.members = 0
        self.rows: dict[Filter, list[Row]] = {}
        self.due: deque[Row] = deque()
        self.fresh: deque[Held] = deque()
        self.joined: dict[tuple[Filter, int], _Joined] = {}
        self.ahead: set[Listener] = set()
        # A crowd that comes back at once asks for the same page of the ring.
        self.page: tuple[Filter, int, bytes, int] | None = None

    @property
    def floor(self) -> int:
        """The ring holds everything after this sequence, up to the head."""
        return self.head - len(self.ring)

    def forget(self) -> None:
        """Drop frames that may tell of somebody who was erased; the outbox has them without.

        A filling that is under way may have been read before the erasure, so it comes too late.
        """
        self.ring.clear()
        self.page = None
        self.is_filled = True

    def close_ranks(self, most: int) -> None:
        """Put those who are left in thinned rows together, at most so many in each."""
        for rows in self.rows.values():
            kept: list[Row] = []
            for row in rows:
                last = kept[-1] if kept else row
                if last is row or len(last.members) + len(row.members) > most or row.position != last.position:
                    kept.append(row)
                    continue
                for listener in row.members:
                    listener.row = last
                last.members |= row.members
                row.members.clear()  # it may be due
            rows[:] = kept

    def restart(self, standing: Standing) -> None:
        """Drop everything that may be of another log, and take every listener out of live delivery, where it is."""
        for rows in self.rows.values():
            for row in rows:
                for listener in row.members:
                    listener.position, listener.row = row.position, None
                row.members.clear()
        self.head, self.epoch = standing
        self.rows.clear()
        self.due.clear()
        self.fresh.clear()
        self.joined.clear()
        self.ahead.clear()
        self.cool()
        self.is_warm = self.members > 0

    def cool(self) -> None:
        """Forget the frames."""
        self.ring.clear()
        self.page = None
        self.is_warm = self.is_filled = False


class Broadcaster(Generic[L]):
    """Feeds and their listeners; `start` it with the heads before anything else."""

    def __init__(
        self, *, ring_events: int = 2000, ring_bytes: int = 2 << 20, page_bytes: int = 64 << 10, row: int = 25
    ) -> None:
        self._bounds = Bounds(ring_events, ring_bytes)
        self._page_bytes = page_bytes
        self._row = row
        self._feeds: dict[str, Feed] = {}
        self._due: deque[Feed] = deque()

    # What the tail calls.

    def start(self, standings: Mapping[str, Standing]) -> None:
        """Take where every log stands, as the tail's cursor does."""
        for organization_id, standing in standings.items():
            feed = self._feed(organization_id)
            feed.head, feed.epoch = max(feed.head, standing.sequence), standing.epoch

    def restart(self, standings: Mapping[str, Standing]) -> dict[str, bool]:
        """Take where every log stands after the database may have gone back, or the tail has jumped ahead.

        A log that was replaced or goes on further ahead loses everything in memory, and its listeners are no longer
        live: the shell takes each of them on with `advance`, and before that `rewind`s those of a replaced log. A log
        that is no longer there counts as replaced by an empty one.

        Returns:
            for each log whose listeners are no longer live, whether it was replaced.
        """
        restarted = {}
        for organization_id in {*self._feeds, *standings}:
            feed = self._feed(organization_id)
            standing = standings.get(organization_id, Standing(0, ""))
            is_replaced = feed.epoch not in ("", standing.epoch)
            if is_replaced or standing.sequence > feed.head:
                feed.restart(standing)
                restarted[organization_id] = is_replaced
            feed.epoch = standing.epoch
        self._due = deque(feed for feed in self._due if feed.due)
        return restarted

    def learn(self, organization_id: str, standing: Standing) -> None:
        """Take the epoch of a log that is new since the tail looked; nothing is changed if one is known."""
        feed = self._feed(organization_id)
        feed.epoch = feed.epoch or standing.epoch

    def epoch(self, organization_id: str) -> str:
        """Return the epoch of the organization's log, empty while it is not known."""
        feed = self._feeds.get(organization_id)
        return feed.epoch if feed else ""

    def standings(self) -> dict[str, Standing]:
        """Return where every log stands, as far as it was published."""
        return {feed.organization_id: Standing(feed.head, feed.epoch) for feed in self._feeds.values()}

    def head(self, organization_id: str) -> int:
        """Return the newest sequence published for the organization; 0 when there was none."""
        feed = self._feeds.get(organization_id)
        return feed.head if feed else 0

    def publish(self, events: Iterable[StoredEvent]) -> None:
        """Take committed events, in order within each organization, for `deliver` to hand over.

        Events at or below the head are repeats and are ignored.
        """
        by_organization: dict[str, list[StoredEvent]] = {}
        for event in events:
            by_organization.setdefault(event.organization_id, []).append(event)
        for organization_id, batch in by_organization.items():
            self._publish(self._feed(organization_id), batch)

    @property
    def outstanding(self) -> int:
        """How many published events wait for somebody to be handed them."""
        return sum(len(feed.fresh) for feed in self._due)

    def deliver(self) -> Delivery[L] | None:
        """Take the next row that is due, and say what to write to it; None when everybody has everything.

        Organizations take turns, so that none waits for all the rows of another.
        """
        while self._due:
            feed = self._due.popleft()
            row = feed.due.popleft()
            after, joined = row.position, self._join(feed, row)
            row.position = joined.up_to
            if joined.up_to < feed.head:
                feed.due.append(row)
            if feed.due:
                self._due.append(feed)
            else:
                feed.fresh.clear()
                feed.joined.clear()
            if joined.data and row.members:
                return Delivery(row.members, joined.data, joined.frames, after, joined.at)  # type: ignore[arg-type]
        return None

    # What the shell calls for a listener.

    def join(self, listener: L, organization_id: str, wanted: Filter = EVERYTHING, since: int | None = None) -> None:
        """Let `listener` follow the organization after `since`, or from now on; `advance` then makes it live."""
        feed = self._feed(organization_id)
        feed.members += 1
        feed.is_warm, feed.is_idle = True, False
        listener.feed, listener.filter, listener.row = feed, wanted, None
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
            return Below(feed.organization_id, feed.epoch, listener.position, feed.floor)
        return self._page(feed, listener)

    def supply(self, listener: L, below: Below, events: Sequence[StoredEvent], reason: Reason = Reason.PRUNED) -> bytes:
        """Turn what the outbox holds of `below`, from its beginning, into frames; says `gap` where some are missing.

        `reason` is why the first of them is not there, if it is not; what is missing further on is a hole. What was
        read of a log that was replaced meanwhile is not used.
        """
        feed = listener.feed
        if feed is None or listener.is_live or (listener.position, feed.epoch) != (below.after, below.epoch):
            return b""
        parts = []
        for event, since in steps(below.after, events):
            if since is not None:
                why = reason if since == below.after else Reason.HOLE
                parts.append(frames.gap(feed.epoch, Gap(since, event.sequence, why)))
            if listener.filter.admits(event):
                parts.append(frames.event(event))
        if not events:
            parts.append(frames.gap(feed.epoch, Gap(below.after, below.up_to + 1, reason)))
        listener.position = events[-1].sequence if events else below.up_to
        return b"".join(parts)

    def rewind(self, listener: L, since: int) -> None:
        """Take `listener` back (or forward) to `since`; it is behind until `advance` says otherwise."""
        self._detach(listener)
        listener.position = since

    def hold(self, listener: L) -> None:
        """Stop handing frames to a listener that cannot keep up; `advance` takes it on from where it is."""
        self._detach(listener)

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
        room = feed.ring.room
        if not feed.is_warm or feed.is_filled or feed.floor == 0 or room <= 0:
            return None
        return Below(organization_id, feed.epoch, max(0, feed.floor - room), feed.floor)

    def fill(self, missing: Below, events: Sequence[StoredEvent]) -> None:
        """Put older events under the ring, as many as fit; those that do not end where it begins are not used."""
        feed = self._feed(missing.organization_id)
        if feed.is_filled or feed.epoch != missing.epoch:
            return
        feed.is_filled = True
        if feed.is_warm:
            feed.ring.fill(feed.floor, map(_hold, reversed(events)))

    def cool(self) -> None:
        """Close the ranks, and forget the frames of organizations that had no listener since the last call either."""
        for feed in self._feeds.values():
            feed.close_ranks(self._row)
            if feed.is_warm and not feed.members:
                if feed.is_idle:
                    feed.cool()
                feed.is_idle = True

    # Inside.

    def _feed(self, organization_id: str) -> Feed:
        feed = self._feeds.get(organization_id)
        if feed is None:
            feed = self._feeds[organization_id] = Feed(organization_id, self._bounds)
        return feed

    def _publish(self, feed: Feed, batch: list[StoredEvent]) -> None:
        run: list[StoredEvent] = []
        for event in batch:
            expected = (run[-1].sequence if run else feed.head) + 1
            if event.sequence < expected:
                continue
            if event.sequence > expected:
                self._publish_run(feed, run)
                self._admit_hole(feed, event)
                run = []
            run.append(event)
        self._publish_run(feed, run)

    def _publish_run(self, feed: Feed, run: list[StoredEvent]) -> None:
        if not run or not feed.is_warm:
            feed.head += len(run)
            return
        if any(event.name == EventName.CONTACT_ERASED for event in run):
            feed.forget()
        held = [_hold(event) for event in run]
        feed.ring.append(held)
        self._move_on(feed, run[-1].sequence, held)

    def _admit_hole(self, feed: Feed, before: StoredEvent) -> None:
        feed.ring.clear()
        notice = frames.gap(feed.epoch, Gap(feed.head, before.sequence, Reason.HOLE))
        self._move_on(feed, before.sequence - 1, [Held(before.sequence - 1, None, None, None, notice, before.at)])

    def _move_on(self, feed: Feed, head: int, held: list[Held]) -> None:
        """Make `head` the newest sequence: rows that want anything of what leads there are due, others have it."""
        was, feed.head, feed.page = feed.head, head, None
        is_waiting = bool(feed.due)
        for wanted, rows in feed.rows.items():
            wants = any(wanted.admits(entry) for entry in held)
            for row in rows:
                if row.position < was:
                    continue  # it is due already
                if wants:
                    feed.due.append(row)
                else:
                    row.position = head
        for listener in [each for each in feed.ahead if each.position <= head]:
            self._attach(feed, listener)
        self._drop_stale(feed)
        if feed.due:
            feed.fresh.extend(held)
            if not is_waiting:
                self._due.append(feed)

    def _drop_stale(self, feed: Feed) -> None:
        feed.joined.clear()
        everybody_has = min((row.position for row in feed.due), default=feed.head)
        while feed.fresh and feed.fresh[0].sequence <= everybody_has:
            feed.fresh.popleft()

    def _join(self, feed: Feed, row: Row) -> _Joined:
        """Join what the row has yet to be handed, about a page of it; the same for all rows that are where it is."""
        key = (row.filter, row.position)
        joined = feed.joined.get(key)
        if joined is None:
            joined = feed.joined[key] = self._join_after(feed, row.position, row.filter)
        return joined

    def _join_after(self, feed: Feed, position: int, wanted: Filter) -> _Joined:
        parts: list[bytes] = []
        size, at = 0, ""
        for entry in feed.fresh:
            if entry.sequence > position and wanted.admits(entry):
                if size >= self._page_bytes:
                    return _Joined(b"".join(parts), len(parts), entry.sequence - 1, at)
                parts.append(entry.frame)
                size += len(entry.frame)
                at = at or entry.at
        return _Joined(b"".join(parts), len(parts), feed.head, at)

    def _page(self, feed: Feed, listener: L) -> bytes:
        if feed.page is None or feed.page[:2] != (listener.filter, listener.position):
            feed.page = self._page_after(feed, listener.filter, listener.position)
        *_, data, listener.position = feed.page
        return data

    def _page_after(self, feed: Feed, wanted: Filter, position: int) -> tuple[Filter, int, bytes, int]:
        parts: list[bytes] = []
        size, up_to = 0, position
        for entry in islice(feed.ring, position - feed.floor, None):
            up_to = entry.sequence
            if wanted.admits(entry):
                parts.append(entry.frame)
                size += len(entry.frame)
                if size >= self._page_bytes:
                    break
        return wanted, position, b"".join(parts), up_to

    def _attach(self, feed: Feed, listener: Listener) -> None:
        feed.ahead.discard(listener)
        position = listener.position
        if position > feed.head:
            feed.ahead.add(listener)
            return
        rows = feed.rows.setdefault(listener.filter, [])
        if not rows or rows[-1].position != position or len(rows[-1].members) >= self._row:
            rows.append(Row(listener.filter, position))
            if position < feed.head:
                feed.due.append(rows[-1])
        listener.row = rows[-1]
        listener.row.members[listener] = listener.send

    def _detach(self, listener: Listener) -> None:
        """Take a listener out of its row, where it is."""
        feed, row = listener.feed, listener.row
        if feed is None:
            return
        feed.ahead.discard(listener)
        if row is None:
            return
        listener.position, listener.row = row.position, None
        del row.members[listener]
        if not row.members:
            rows = feed.rows[row.filter]
            rows.remove(row)
            if not rows:
                del feed.rows[row.filter]


def _hold(event: StoredEvent) -> Held:
    frame = frames.event(event)
    return Held(event.sequence, event.name, event.contact_id, event.conversation_id, frame, event.at)
