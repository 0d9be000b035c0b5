"""A model of everything around the `Broadcaster`: committed events, tails that lag, replays that take their time.

The machine plays one or two broadcasters on one outbox. Whatever happens, in whatever order, a listener must have got
exactly the committed sequence from where it started, minus what its filters exclude and what it was told is gone.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.events import EventName, StoredEvent
from realtime.broadcaster import EVERYTHING, Below, Broadcaster, Filter, Listener

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
        self.pending: tuple[Below, list[StoredEvent]] | None = None
        self.last = start

    def receive(self, data: bytes) -> None:
        for frame in decode(data):
            if frame["type"] == "gap":
                self.gone.update(range(frame["since"] + 1, frame["oldest"]))
                self.last = frame["oldest"] - 1
            else:
                self.got.append(frame["seq"])
                self.last = frame["seq"]

    def wants(self, event: StoredEvent) -> bool:
        wanted = [each for since, each in self.filters if event.sequence > since][-1]
        return wanted.admits(event)


class BroadcasterMachine(RuleBasedStateMachine):
    """Two broadcasters, one outbox, any order."""

    make: type[Broadcaster[Any]] = Broadcaster
    knows_heads = True

    @initialize()
    def begin(self) -> None:
        self.log: dict[str, list[StoredEvent]] = {name: [] for name in ORGANIZATIONS}
        self.committed: list[StoredEvent] = []
        self.pruned: dict[str, int] = dict.fromkeys(ORGANIZATIONS, 0)
        self.broadcasters: list[Broadcaster[Client]] = [self.fresh(), self.fresh()]
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
            event = StoredEvent(organization, sequence, name, "2026-05-15T09:10:00.000Z", "{}", contact)
            self.log[organization].append(event)
            self.committed.append(event)

    @rule(organization=organizations, keep=st.integers(1, 8))
    def prune(self, organization: str, keep: int) -> None:
        # Retention is hours, a tail lags milliseconds: what has not been published everywhere is never pruned.
        published = min(each.head(organization) for each in self.broadcasters)
        self.pruned[organization] = max(self.pruned[organization], min(published, len(self.log[organization])) - keep)

    @rule(where=which, batch=st.integers(1, 5))
    def tail(self, where: int, batch: int) -> None:
        events = self.committed[self.cursors[where] : self.cursors[where] + batch]
        self.broadcasters[where].publish(events)
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
        if self.knows_heads:
            self.broadcasters[where].start({name: len(log) for name, log in self.log.items()})

    @rule(where=which)
    def cool(self, where: int) -> None:
        self.broadcasters[where].cool()

    # Listeners.

    @rule(where=which, organization=organizations, wanted=filters)
    def connect(self, where: int, organization: str, wanted: Filter) -> None:
        client = Client(organization, wanted, self.broadcasters[where].head(organization))
        self.broadcasters[where].join(client, organization, wanted)
        assert self.broadcasters[where].advance(client) is None
        self.clients.append((where, client))

    @rule(where=which, organization=organizations, wanted=filters, place=st.floats(0, 1))
    def connect_with_since(self, where: int, organization: str, wanted: Filter, place: float) -> None:
        # A listener may know more than this broadcaster, having been at the other one.
        self.join_at(where, organization, wanted, int(place * len(self.log[organization])))

    @rule(pick=anyone, where=which)
    def reconnect(self, pick: int, where: int) -> None:
        if self.clients:
            place, client = self.clients[pick % len(self.clients)]
            self.drop(place, client)
            self.join_at(where, client.organization, client.filters[-1][1], client.last)

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
            self.clients[pick % len(self.clients)] = (where, again)
            # The connection goes on; what comes after the second hello is checked on its own.
            self.finish(client, client.sequence)
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
            broadcaster.fill(organization, self.outbox(missing, 100))

    @invariant()
    def nobody_was_sent_anything_wrong(self) -> None:
        for _, client in getattr(self, "clients", []):
            self.check(client, client.sequence)

    def teardown(self) -> None:
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
            self.check(client, len(self.log[client.organization]))

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

    def join_at(self, where: int, organization: str, wanted: Filter, since: int) -> None:
        client = Client(organization, wanted, since)
        self.broadcasters[where].join(client, organization, wanted, since)
        self.clients.append((where, client))

    def step_client(self, where: int, client: Client) -> None:
        """Advance as the shell does; a read from the outbox and its arrival are two steps."""
        broadcaster = self.broadcasters[where]
        if client.pending:
            below, events = client.pending
            client.pending = None
            client.receive(broadcaster.supply(client, below, events))
            return
        step = broadcaster.advance(client)
        if isinstance(step, Below):
            client.pending = (step, self.outbox(step, 3))
        elif step is not None:
            client.receive(step)

    def outbox(self, below: Below, limit: int) -> list[StoredEvent]:
        floor = max(below.after, self.pruned[below.organization_id])
        return self.log[below.organization_id][floor : below.up_to][:limit]

    def drop(self, where: int, client: Client) -> None:
        self.finish(client, client.sequence)
        self.broadcasters[where].leave(client)
        self.broadcasters[where].leave(client)
        self.clients.remove((where, client))

    def finish(self, client: Client, up_to: int) -> None:
        self.check(client, up_to)

    def check(self, client: Client, up_to: int) -> None:
        """`client` has got everything it wants after its start, up to `up_to`, and nothing else."""
        log = self.log[client.organization]
        expected = [
            event.sequence
            for event in log[client.start : up_to]
            if event.sequence not in client.gone and client.wants(event)
        ]

        assert client.got == expected
        assert all(sequence <= self.pruned[client.organization] for sequence in client.gone)
