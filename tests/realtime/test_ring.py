from collections.abc import Iterable

from realtime.ring import Bounds, Held, Ring


def held(sequence: int, size: int = 10) -> Held:
    return Held(sequence, "note_created", None, None, b"x" * size, "2026-05-15T09:10:00.000Z")


def sequences(ring: Iterable[Held]) -> list[int]:
    return [entry.sequence for entry in ring]


def test_a_ring_drops_its_oldest_entries_when_there_are_too_many() -> None:
    """Either bound suffices, and the size is that of what is left."""
    ring = Ring(Bounds(3, 100))
    ring.append([held(1), held(2), held(3), held(4)])
    by_events = sequences(ring), ring.size
    ring.append([held(5, 85)])

    assert by_events == ([2, 3, 4], 30)
    assert (sequences(ring), ring.size) == ([4, 5], 95)


def test_a_ring_is_empty_after_an_entry_that_is_longer_than_all_of_it() -> None:
    """It never has a hole, so what is older than that entry goes as well."""
    ring = Ring(Bounds(3, 100))
    ring.append([held(1), held(2, 101)])

    assert (sequences(ring), ring.size) == ([], 0)


def test_a_ring_is_filled_up_to_the_first_entry_that_does_not_follow_or_fit() -> None:
    """Entries stay consecutive, and within both bounds."""
    room = Bounds(4, 100)
    by_events, by_size, by_hole = Ring(room), Ring(room), Ring(room)
    for ring in (by_events, by_size, by_hole):
        ring.append([held(5), held(6)])
    expected = by_events.room
    by_events.fill(4, [held(4), held(3), held(2)])
    by_size.fill(4, [held(4), held(3, 71), held(2)])
    by_hole.fill(4, [held(4), held(2)])

    assert expected == 2
    assert (sequences(by_events), sequences(by_size), sequences(by_hole)) == ([3, 4, 5, 6], [4, 5, 6], [4, 5, 6])


def test_a_ring_has_room_for_as_many_as_its_bytes_allow() -> None:
    """Older events are taken to be as long as those that are there."""
    ring = Ring(Bounds(100, 100))
    empty = ring.room
    ring.append([held(1, 30)])

    assert (empty, ring.room) == (100, 2)
