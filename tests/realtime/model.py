"""A model of everything around the `Broadcaster`: committed events, tails that lag, replays that take their time.

The machine plays one or two broadcasters on one outbox. Whatever happens, in whatever order, a listener must have got
exactly the committed sequence from where it started, minus what its filters exclude and what it was told is gone: the
beginning of a log, holes in the middle, or all of it when the database went back and the log has another epoch.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.epochs import Standing
from domain.events import EventName, StoredEvent
from domain.filters import EVERYTHING, Filter
from domain.gaps import Reason, reason_below
from realtime.broadcaster import Below, Broadcaster, Listener
from tests.support import published_events

ORGANIZATIONS = ("org-a", "org-b")
CONTACTS = ("c" * 24, "d" * 24, None)
# An event that was erased is one like any other to a broadcaster; an erasure is not.
NAMES = tuple(name.value for name in EventName if name is not EventName.ERASED)

organizations = st.sampled_from(ORGANIZATIONS)
filters = st.one_of(
    st.just(EVERYTHING),
    st.builds(
        Filter,
        events=st.none() | st.frozensets(st.sampled_from(NAMES[:3]), min_size=1),
        contact_id=st.sampled_from(CONTACTS),
    ),
)
which = st.integers(0, 1)
anyone = st.integers(0, 50)


def decode(data: bytes) -> Iterator[dict[str, Any]]:
    """Take joined RFC 6455 text frames apart."""
    while data:
        assert data[0] == 0x81
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        yield json.loads(data[start : start + size])
        data = data[start + size :]


class Client(Listener):
    """A listener with a memory: what it was sent, from where, and under which filters."""

    def __init__(self, organization: str, wanted: Filter, start: int) -> None:
        super().__init__()
        self.organization = organization
        self.start = start
        self.filters = [(start, wanted)]
        self.got: list[int] = []
        self.gone: set[int] = set()
        self.pending: tuple[Below, list[StoredEvent], Reason] | None = None
        self.last = start
        self.epoch = ""

    def receive(self, data: bytes) -> None:
        for frame in decode(data):
            if frame["type"] == "gap":
                published_events.check(json.dumps(frame))
                assert frame["epoch"] == self.epoch
                self.gone.update(range(frame["since"] + 1, frame["oldest"]))
                self.last = frame["oldest"] - 1
            else:
                self.got.append(frame["seq"])
                self.last = frame["seq"]

    def start_over(self, at: int, epoch: str) -> None:
        """Go on in another log, of which it has been told; what was read for it before is still on its way."""
        self.start = self.last = at
        self.epoch = epoch
        self.filters = [(at, self.filters[-1][1])]
        self.got, self.gone = [], set()

    def wants(self, event: StoredEvent) -> bool:
        wanted = [each for since, each in self.filters if event.sequence > since][-1]
        return wanted.admits(event)


class BroadcasterMachine(RuleBasedStateMachine):
    """Two broadcasters, one outbox, any order."""

    make: type[Broadcaster[Any]] = Broadcaster
    knows_heads = True
    logs_break = True  # holes come into logs, and the database goes back

    @initialize()
    def begin(self) -> None:
        self.log: dict[str, list[StoredEvent]] = {name: [] for name in ORGANIZATIONS}
        self.committed: list[StoredEvent] = []
        self.pruned: dict[str, int] = dict.fromkeys(ORGANIZATIONS, 0)
        self.missing: dict[str, set[int]] = {name: set() for name in ORGANIZATIONS}
        self.epochs = dict.fromkeys(ORGANIZATIONS, f"{1:024x}")
        self.times = 0
        self.noticed = [0, 0]
        self.broadcasters: list[Broadcaster[Client]] = [self.fresh(), self.fresh()]
        for broadcaster in self.broadcasters:
            broadcaster.start(self.standings())
        self.cursors = [0, 0]
        self.clients: list[tuple[int, Client]] = []
        self.finished: list[Client] = []

    def fresh(self) -> Broadcaster[Client]:
        return self.make(ring_events=4, ring_bytes=2000, page_bytes=400, row=2)

    # The world.

    @rule(organization=organizations, names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    def commit(self, organization: str, names: list[str]) -> None:
        for name in names:
            sequence = len(self.log[organization]) + 1
            contact = CONTACTS[sequence % 3]
            at = f"2026-05-15T09:10:{self.times % 60:02}.000Z"  # another one after each time the log went back
            event = StoredEvent(organization, sequence, name, at, "{}", contact)
            self.log[organization].append(event)
            self.committed.append(event)

    @rule(organization=organizations, keep=st.integers(1, 8))
    def prune(self, organization: str, keep: int) -> None:
        # Retention is hours, a tail lags milliseconds: what has not been published everywhere is never pruned.
        published = min(each.head(organization) for each in self.broadcasters)
        self.pruned[organization] = max(self.pruned[organization], min(published, len(self.log[organization])) - keep)

    @precondition(lambda self: self.logs_break)
    @rule(organization=organizations, place=st.floats(0, 1))
    def lose(self, organization: str, place: float) -> None:
        # The newest event is never lost: nothing after it could tell.
        if sequence := int(place * (len(self.log[organization]) - 1)):
            self.missing[organization].add(sequence)

    @precondition(lambda self: self.logs_break)
    @rule(share=st.floats(0, 1))
    def go_back(self, share: float) -> None:
        # A backup is restored: every log ends earlier, or where it did, and has another epoch.
        self.times += 1
        for name in ORGANIZATIONS:
            kept = int(share * len(self.log[name]))
            del self.log[name][kept:]
            self.pruned[name] = min(self.pruned[name], kept)
            self.missing[name] = {sequence for sequence in self.missing[name] if sequence < kept}
            self.epochs[name] = f"{self.times + 1:024x}"
        self.committed = [event for event in self.committed if event in self.log[event.organization_id]]

    @precondition(lambda self: self.logs_break)
    @rule(where=which)
    def notice(self, where: int) -> None:
        if self.noticed[where] == self.times:
            return
        self.noticed[where] = self.times
        self.cursors[where] = len(self.committed)
        restarted = self.broadcasters[where].restart(self.standings())
        for place, client in self.clients:
            if place == where:
                assert restarted[client.organization]
                head = len(self.log[client.organization])
                self.broadcasters[where].rewind(client, head)
                client.start_over(head, self.epochs[client.organization])

    @precondition(lambda self: self.logs_break)
    @rule(where=which)
    def jump(self, where: int) -> None:
        # Another broadcaster noticed first: this one takes position at the end, and logs that are the same go on.
        if self.noticed[where] == self.times:
            self.cursors[where] = len(self.committed)
            restarted = self.broadcasters[where].restart(self.standings())
            assert not any(restarted.values())

    @rule(where=which, batch=st.integers(1, 5))
    def tail(self, where: int, batch: int) -> None:
        events = self.committed[self.cursors[where] : self.cursors[where] + batch]
        there = [event for event in events if event.sequence not in self.missing[event.organization_id]]
        self.broadcasters[where].publish(there)
        self.cursors[where] += len(events)

    @rule(where=which, full=st.sets(anyone, max_size=2))
    def deliver(self, where: int, full: Collection[int]) -> None:
        self.write_to_row(where, full)

    @rule(where=which)
    def deliver_all(self, where: int) -> None:
        while self.write_to_row(where):
            pass

    @rule(where=which)
    def restart(self, where: int) -> None:
        for place, client in [pair for pair in self.clients if pair[0] == where]:
            self.drop(place, client)
        self.broadcasters[where] = self.fresh()
        self.cursors[where] = len(self.committed)
        self.noticed[where] = self.times
        for name, standing in self.standings().items():
            self.broadcasters[where].learn(name, standing)
        if self.knows_heads:
            self.broadcasters[where].start(self.standings())

    @rule(where=which)
    def cool(self, where: int) -> None:
        self.broadcasters[where].cool()

    # Listeners.

    @rule(where=which, organization=organizations, wanted=filters)
    def connect(self, where: int, organization: str, wanted: Filter) -> None:
        client = Client(organization, wanted, self.broadcasters[where].head(organization))
        client.epoch = self.broadcasters[where].epoch(organization)
        self.broadcasters[where].join(client, organization, wanted)
        assert self.broadcasters[where].advance(client) is None
        self.clients.append((where, client))

    @rule(where=which, organization=organizations, wanted=filters, place=st.floats(0, 1))
    def connect_with_since(self, where: int, organization: str, wanted: Filter, place: float) -> None:
        # A listener may know more than this broadcaster, having been at the other one.
        since, epoch = int(place * len(self.log[organization])), self.broadcasters[where].epoch(organization)
        self.join_at(where, organization, wanted, since, epoch)

    @rule(where=which, organization=organizations, wanted=filters)
    def return_while_the_tail_lags(self, where: int, organization: str, wanted: Filter) -> None:
        # More was published than the ring holds, and more is committed than was published. The read is on its way.
        self.commit(organization, [NAMES[0]] * 6)
        self.tail(where, len(self.committed))
        self.commit(organization, [NAMES[0]] * 2)
        epoch, before = self.broadcasters[where].epoch(organization), len(self.clients)
        self.join_at(where, organization, wanted, len(self.log[organization]) - 8, epoch)
        if len(self.clients) > before:
            self.step_client(*self.clients[-1])

    @rule(pick=anyone, where=which)
    def reconnect(self, pick: int, where: int) -> None:
        if self.clients:
            place, client = self.clients[pick % len(self.clients)]
            self.drop(place, client)
            self.join_at(where, client.organization, client.filters[-1][1], client.last, client.epoch)

    @rule(pick=anyone)
    def step(self, pick: int) -> None:
        if self.clients:
            self.step_client(*self.clients[pick % len(self.clients)])

    @rule(pick=anyone, back=st.integers(0, 6))
    def resume(self, pick: int, back: int) -> None:
        if self.clients:
            where, client = self.clients[pick % len(self.clients)]
            since = max(0, client.sequence - back)
            again = Client(client.organization, client.filters[-1][1], since)
            again.epoch = client.epoch
            self.clients[pick % len(self.clients)] = (where, again)
            # The connection goes on; what comes after the second hello is checked on its own.
            self.finish(where, client, client.sequence)
            self.broadcasters[where].leave(client)
            self.broadcasters[where].join(again, again.organization, again.filters[0][1])
            self.broadcasters[where].rewind(again, since)

    @rule(pick=anyone, wanted=filters)
    def subscribe(self, pick: int, wanted: Filter) -> None:
        if self.clients:
            where, client = self.clients[pick % len(self.clients)]
            self.broadcasters[where].subscribe(client, wanted)
            client.filters.append((client.sequence, wanted))

    @rule(pick=anyone)
    def hold(self, pick: int) -> None:
        if self.clients:
            where, client = self.clients[pick % len(self.clients)]
            self.broadcasters[where].hold(client)

    @rule(where=which, organization=organizations)
    def fill(self, where: int, organization: str) -> None:
        broadcaster = self.broadcasters[where]
        if missing := broadcaster.unfilled(organization):
            broadcaster.fill(missing, self.outbox(missing, 100))

    @invariant()
    def nobody_was_sent_anything_wrong(self) -> None:
        for where, client in getattr(self, "clients", []):
            self.check(where, client, client.sequence)

    def teardown(self) -> None:
        for where in range(len(getattr(self, "noticed", []))):
            self.notice(where)
        for where, cursor in enumerate(getattr(self, "cursors", [])):
            self.tail(where, len(self.committed) - cursor)
            self.deliver_all(where)
        for where, client in getattr(self, "clients", []):
            for _ in range(200):
                if client.is_live:
                    break
                self.step_client(where, client)
            assert client.is_live
            assert self.broadcasters[where].outstanding == 0
            self.check(where, client, len(self.log[client.organization]))

    # How it is done.

    def write_to_row(self, where: int, full: Collection[int] = ()) -> bool:
        """Write what the next row is due, except to those whose buffers are full; False when none is due."""
        without_room = {id(client) for index, (_, client) in enumerate(self.clients) if index in full}
        delivery = self.broadcasters[where].deliver()
        if delivery is None:
            return False
        assert delivery.frames == len(list(decode(delivery.data)))
        for client in list(delivery.listeners):
            if id(client) in without_room:
                self.broadcasters[where].rewind(client, delivery.after)
            else:
                client.receive(delivery.data)
        return True

    def standings(self) -> dict[str, Standing]:
        return {name: Standing(len(log), self.epochs[name]) for name, log in self.log.items()}

    def join_at(self, where: int, organization: str, wanted: Filter, since: int, epoch: str) -> None:
        """Let a listener come back as the shell does: one whose position is in another log starts at the head."""
        broadcaster = self.broadcasters[where]
        if epoch == self.epochs[organization] != broadcaster.epoch(organization):
            return  # refused until the broadcaster has noticed
        if epoch != broadcaster.epoch(organization):
            since = broadcaster.head(organization)
        client = Client(organization, wanted, since)
        client.epoch = broadcaster.epoch(organization)
        broadcaster.join(client, organization, wanted, since)
        self.clients.append((where, client))

    def step_client(self, where: int, client: Client) -> None:
        """Advance as the shell does; a read from the outbox and its arrival are two steps."""
        broadcaster = self.broadcasters[where]
        if client.pending:
            below, events, reason = client.pending
            client.pending = None
            client.receive(broadcaster.supply(client, below, events, reason))
            return
        step = broadcaster.advance(client)
        if isinstance(step, Below):
            oldest = next((event.sequence for event in self.kept(client.organization)), None)
            client.pending = (step, self.outbox(step, 3), reason_below(step.after, oldest))
        elif step is not None:
            client.receive(step)

    def outbox(self, below: Below, limit: int) -> list[StoredEvent]:
        kept = self.kept(below.organization_id)
        return [event for event in kept if below.after < event.sequence <= below.up_to][:limit]

    def kept(self, organization: str) -> list[StoredEvent]:
        missing = self.missing[organization]
        return [event for event in self.log[organization][self.pruned[organization] :] if event.sequence not in missing]

    def drop(self, where: int, client: Client) -> None:
        self.finish(where, client, client.sequence)
        self.broadcasters[where].leave(client)
        self.broadcasters[where].leave(client)
        self.clients.remove((where, client))

    def finish(self, where: int, client: Client, up_to: int) -> None:
        self.check(where, client, up_to)

    def check(self, where: int, client: Client, up_to: int) -> None:
        """`client` has got everything it wants after its start, up to `up_to`, and nothing else.

        What it gets between the log's replacement and the time its broadcaster notices is of no log there is.
        """
        if self.noticed[where] != self.times:
            return
        log, missing = self.log[client.organization], self.missing[client.organization]
        expected = [
            event.sequence
            for event in log[client.start : up_to]
            if event.sequence not in client.gone and client.wants(event)
        ]

        assert client.got == expected
        pruned = self.pruned[client.organization]
        assert all(sequence <= pruned or sequence in missing for sequence in client.gone)
