from typing import Any

from hypothesis import settings

from domain.epochs import Standing
from domain.events import StoredEvent
from domain.filters import Filter
from realtime.broadcaster import Below, Broadcaster, Delivery, Listener
from tests.realtime.model import BroadcasterMachine, decode

EPOCH = "0" * 24

TestBroadcasterMachine: Any = BroadcasterMachine.TestCase
TestBroadcasterMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def event(
    sequence: int, name: str = "call_ended", contact: str | None = None, size: int = 2, organization: str = "org"
) -> StoredEvent:
    data = "{" + " " * (size - 2) + "}"
    return StoredEvent(organization, sequence, name, "2026-05-15T09:10:00.000Z", data, contact)


def sequences(data: bytes) -> list[int]:
    return [frame["seq"] for frame in decode(data) if frame["type"] == "event"]


def live(
    broadcaster: Broadcaster[Listener],
    since: int | None = None,
    wanted: Filter | None = None,
    organization: str = "org",
) -> Listener:
    listener = Listener()
    broadcaster.join(listener, organization, wanted or Filter(), since)
    assert broadcaster.advance(listener) is None
    return listener


def delivered(broadcaster: Broadcaster[Listener], *events: StoredEvent) -> list[Delivery[Listener]]:
    """Publish, and deliver until nothing is due."""
    broadcaster.publish(events)
    return list(iter(broadcaster.deliver, None))


def test_listeners_with_one_filter_share_one_joined_write() -> None:
    """All listeners of an organization who want the same get the very same bytes."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    listeners = {live(broadcaster) for _ in range(3)}

    deliveries = delivered(broadcaster, event(1), event(2))

    assert [(set(each.listeners), sequences(each.data), each.frames) for each in deliveries] == [(listeners, [1, 2], 2)]


def test_filters_make_groups_of_their_own() -> None:
    """Each filter gets one write that holds what it admits; a filter that admits nothing gets none."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    everything = live(broadcaster)
    notes = live(broadcaster, wanted=Filter(events=frozenset({"note_created"})))
    live(broadcaster, wanted=Filter(contact_id="nobody"))

    deliveries = delivered(broadcaster, event(1), event(2, "note_created"))

    assert [(list(each.listeners), sequences(each.data)) for each in deliveries] == [
        ([everything], [1, 2]),
        ([notes], [2]),
    ]


def test_what_is_published_during_a_round_goes_along_with_the_rest_of_it() -> None:
    """Who has not had a turn yet gets old and new in one write, and before those who had one get the new."""
    broadcaster: Broadcaster[Listener] = Broadcaster(row=1)
    first, second, third = (live(broadcaster) for _ in range(3))
    broadcaster.publish([event(1)])
    early = broadcaster.deliver()
    assert early
    late = delivered(broadcaster, event(2))

    assert [(list(each.listeners), sequences(each.data)) for each in [early, *late]] == [
        ([first], [1]),
        ([second], [1, 2]),
        ([third], [1, 2]),
        ([first], [2]),
    ]
    assert late[0].data is late[1].data


def test_a_listener_that_becomes_live_during_a_round_gets_what_comes_after_it() -> None:
    """It starts at the newest event, whatever others have yet to be handed."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    waiting = live(broadcaster)
    broadcaster.publish([event(1)])
    newcomer = live(broadcaster)
    deliveries = delivered(broadcaster, event(2))

    assert [(list(each.listeners), sequences(each.data)) for each in deliveries] == [
        ([waiting], [1, 2]),
        ([newcomer], [2]),
    ]


def test_who_had_no_room_goes_on_from_before_what_was_not_written() -> None:
    """Its row has moved on; it has not."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    full, ready = live(broadcaster), live(broadcaster)
    broadcaster.publish([event(1), event(2)])
    delivery = broadcaster.deliver()
    assert delivery
    broadcaster.rewind(full, delivery.after)
    page = broadcaster.advance(full)

    assert isinstance(page, bytes)
    assert sequences(page) == [1, 2]
    assert (full.sequence, ready.sequence) == (2, 2)


def test_organizations_take_turns() -> None:
    """One with a single row of listeners does not wait for all the rows of another."""
    broadcaster: Broadcaster[Listener] = Broadcaster(row=1)
    large = [live(broadcaster) for _ in range(3)]
    small = live(broadcaster, organization="small")

    deliveries = delivered(broadcaster, event(1), event(1, organization="small"))

    assert [list(each.listeners) for each in deliveries] == [[large[0]], [small], [large[1]], [large[2]]]


def test_what_is_joined_for_a_row_is_bounded() -> None:
    """A row that lags gets about a page at a time, and the others have turns in between."""
    broadcaster: Broadcaster[Listener] = Broadcaster(page_bytes=1000, row=1)
    live(broadcaster)
    live(broadcaster)

    deliveries = delivered(broadcaster, *(event(sequence, size=400) for sequence in range(1, 6)))

    assert [sequences(each.data) for each in deliveries] == [[1, 2, 3], [1, 2, 3], [4, 5], [4, 5]]
    assert broadcaster.outstanding == 0


def test_thinned_rows_are_put_together_even_while_they_are_due() -> None:
    """Those who are left share a write again, and get what they were due once."""
    broadcaster: Broadcaster[Listener] = Broadcaster(row=2)
    listeners = [live(broadcaster) for _ in range(4)]
    broadcaster.publish([event(1)])
    for listener in listeners[1::2]:
        broadcaster.leave(listener)
    broadcaster.cool()

    deliveries = delivered(broadcaster, event(2))

    assert [(list(each.listeners), sequences(each.data)) for each in deliveries] == [(listeners[0::2], [1, 2])]


def test_an_event_published_twice_is_delivered_once() -> None:
    """A repeat, alone or inside a batch, changes nothing."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    live(broadcaster)

    first = delivered(broadcaster, event(1), event(1), event(2))
    again = delivered(broadcaster, event(1), event(2), event(3))

    assert [sequences(each.data) for each in first + again] == [[1, 2], [3]]


def test_a_hole_is_told_to_live_listeners() -> None:
    """Should the outbox ever skip a sequence, listeners hear of it before what follows."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    live(broadcaster, wanted=Filter(events=frozenset({"note_created"})))

    deliveries = delivered(broadcaster, event(1), event(4, "note_created"))

    told = [frame for each in deliveries for frame in decode(each.data)]
    assert [(frame["type"], frame.get("oldest") or frame.get("seq")) for frame in told] == [("gap", 4), ("event", 4)]
    assert told[0]["since"] == 1


def test_a_listener_ahead_of_the_tail_gets_nothing_twice() -> None:
    """Who comes from a faster broadcaster waits until this one gets there, then goes on live."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    listener = live(broadcaster, since=2)
    follower = live(broadcaster)

    deliveries = delivered(broadcaster, event(1), event(2), event(3))

    assert [(list(each.listeners), sequences(each.data)) for each in deliveries] == [
        ([follower], [1, 2, 3]),
        ([listener], [3]),
    ]
    assert listener.is_live


def test_the_ring_is_bounded_in_bytes_and_in_events() -> None:
    """Old frames go when either limit is passed; what is left always reaches up to the head."""
    broadcaster: Broadcaster[Listener] = Broadcaster(ring_events=3, ring_bytes=3000)
    feed = live(broadcaster).feed
    assert feed is not None

    broadcaster.publish([event(sequence) for sequence in range(1, 6)])
    by_events = [entry.sequence for entry in feed.ring]
    broadcaster.publish([event(6, size=1500), event(7, size=1400)])
    by_bytes = [entry.sequence for entry in feed.ring]
    broadcaster.publish([event(8, size=5000)])

    assert by_events == [3, 4, 5]
    assert by_bytes == [7]
    assert (list(feed.ring), feed.floor, feed.ring.size) == ([], 8, 0)


def test_nothing_is_kept_for_an_organization_without_listeners() -> None:
    """An organization nobody follows is counted, not kept; one that was followed is forgotten after two sweeps."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    broadcaster.publish([event(1)])
    listener = live(broadcaster)
    feed = listener.feed
    assert feed is not None
    broadcaster.publish([event(2)])
    broadcaster.leave(listener)

    broadcaster.cool()
    kept = len(feed.ring)
    broadcaster.cool()

    assert (kept, len(feed.ring), broadcaster.head("org")) == (1, 0, 2)


def test_pages_of_a_replay_are_bounded() -> None:
    """A replay from the ring comes in pages of about `page_bytes`, so that the peer's reading sets the pace."""
    broadcaster: Broadcaster[Listener] = Broadcaster(page_bytes=1000)
    live(broadcaster)
    broadcaster.publish([event(sequence, size=400) for sequence in range(1, 6)])
    late = Listener()
    broadcaster.join(late, "org", since=0)

    pages = []
    while isinstance(page := broadcaster.advance(late), bytes):
        pages.append(sequences(page))

    assert pages == [[1, 2, 3], [4, 5]]
    assert late.is_live


def test_a_crowd_that_comes_back_shares_its_pages() -> None:
    """Who asks for the same gets the very same bytes, until something new is published."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    live(broadcaster)
    broadcaster.publish([event(1), event(2, "note_created")])

    def page(since: int, wanted: Filter | None = None) -> bytes:
        listener = Listener()
        broadcaster.join(listener, "org", wanted or Filter(), since)
        data = broadcaster.advance(listener)
        assert isinstance(data, bytes)
        return data

    first, again = page(0), page(0)
    others = [page(1), page(0, Filter(events=frozenset({"note_created"})))]
    broadcaster.publish([event(3)])

    assert again is first
    assert [sequences(data) for data in [first, *others, page(0)]] == [[1, 2], [2], [2], [1, 2, 3]]


def test_no_frame_outlives_the_erasure_of_its_person() -> None:
    """What was in memory is dropped, and so is what was read for it before; the outbox is asked again."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    broadcaster.start({"org": Standing(3, EPOCH)})
    live(broadcaster)
    broadcaster.publish([event(4, contact="c")])
    read_before = broadcaster.unfilled("org")
    broadcaster.publish([event(5, "contact_erased", contact="c")])
    assert read_before is not None
    broadcaster.fill(read_before, [event(number, contact="c") for number in (1, 2, 3)])
    behind = Listener()
    broadcaster.join(behind, "org", since=0)

    assert read_before == Below("org", EPOCH, 0, 3)
    assert broadcaster.advance(behind) == Below("org", EPOCH, 0, 4)


def test_what_is_read_before_an_erasure_is_not_put_into_an_empty_memory() -> None:
    """Even where it would fit exactly."""
    broadcaster: Broadcaster[Listener] = Broadcaster()
    broadcaster.start({"org": Standing(3, EPOCH)})
    live(broadcaster)
    read_before = broadcaster.unfilled("org")
    broadcaster.publish([event(4, "contact_erased", contact="c")])
    assert read_before is not None
    broadcaster.fill(read_before, [event(number, contact="c") for number in (1, 2, 3)])
    behind = Listener()
    broadcaster.join(behind, "org", since=0)

    assert read_before == Below("org", EPOCH, 0, 3)
    assert broadcaster.advance(behind) == Below("org", EPOCH, 0, 3)
