import asyncio
from functools import partial

from domain.events import Event, EventName
from persistence import models, organizations, outbox
from persistence.database import Database

OLD, BEFORE = "2020-01-01T00:00:00.000Z", "2021-01-01T00:00:00.000Z"


def happened(index: int) -> Event:
    return Event(EventName.NOTE_CREATED, {"index": index})


async def append(database: Database, organization_id: str, *indexes: int) -> None:
    await database.write(lambda: outbox.append(organization_id, [happened(index) for index in indexes]))


async def test_sequences_are_counted_per_organization_without_gaps(database: Database) -> None:
    """Two organizations that write at once each get 1, 2, 3 …"""
    one, two = [(await database.write(lambda: organizations.add("Org", None))).id for _ in range(2)]
    await asyncio.gather(*[append(database, organization, 0, 1) for organization in [one, two] * 25])

    for organization in (one, two):
        events = await database.read(partial(outbox.after, organization, 0, 1000))
        assert [event.sequence for event in events] == list(range(1, 51))


async def test_replay_is_bounded_on_both_sides(database: Database, organization_id: str) -> None:
    """A page starts after the given sequence, ends at the bound, and holds no more than asked for."""
    await append(database, organization_id, *range(10))
    page = await database.read(lambda: outbox.after(organization_id, 3, 100, up_to=6))
    short = await database.read(lambda: outbox.after(organization_id, 3, 2))

    assert [event.sequence for event in page] == [4, 5, 6]
    assert [event.sequence for event in short] == [4, 5]


async def test_following_the_log_yields_every_event_once(database: Database, organization_id: str) -> None:
    """Reading on from the returned position never repeats and never skips."""
    start = await database.read(outbox.tail_position)
    await append(database, organization_id, *range(7))
    seen, cursor = [], start
    async with database.follow() as follower:
        while True:
            cursor, events, _ = await outbox.following(follower.rows, cursor, 3)
            if not events:
                break
            seen += [event.sequence for event in events]

    assert seen == list(range(1, 8))
    assert cursor == await database.read(outbox.tail_position)


async def test_pruning_keeps_the_newest_event_of_each_organization(database: Database, organization_id: str) -> None:
    """However old it is, the newest event stays, so positions in the log never start over."""
    await append(database, organization_id, *range(5))
    removed = await database.write(lambda: outbox.prune("9999-01-01T00:00:00.000Z", 100))
    oldest = await database.read(lambda: outbox.oldest(organization_id))

    assert (removed, oldest) == (4, 5)
    assert await database.read(lambda: outbox.head(organization_id)) == 5


async def test_two_organizations_in_one_read_are_both_moved_on(database: Database, organization_id: str) -> None:
    """Whichever is asked first: there is more as long as one of them has more, and nothing is read twice."""
    quiet = (await database.write(lambda: organizations.add("Quiet", None))).id
    start = await database.read(outbox.tail_position)
    await append(database, organization_id, *range(5))
    await append(database, quiet, 0)
    for among in ([organization_id, quiet], [quiet, organization_id]):
        cursor = dict(start) if isinstance(start, dict) else start
        seen: dict[str, list[int]] = {organization_id: [], quiet: []}
        async with database.follow() as follower:
            for _ in range(10):
                passage = await outbox.following(follower.rows, cursor, 4, among)
                cursor = passage.cursor
                for event in passage.events:
                    seen[event.organization_id].append(event.sequence)
                assert passage.has_more or seen == {organization_id: [1, 2, 3, 4, 5], quiet: [1]}

        assert seen == {organization_id: [1, 2, 3, 4, 5], quiet: [1]}


def set_time(sequence: int, at: str) -> None:
    models.Event.update(at=at).where(models.Event.sequence == sequence).execute()


async def test_pruning_removes_nothing_but_the_beginning_when_the_clock_was_wrong(
    database: Database, organization_id: str
) -> None:
    """Events in the middle that seem to be old stay as long as one before them does: no hole comes into the log."""
    await append(database, organization_id, *range(10))
    wrong = {1: OLD, 2: OLD, 5: OLD, 6: OLD, 9: OLD}
    for sequence, at in wrong.items():
        await database.write(partial(set_time, sequence, at))

    removed = [await database.write(lambda: outbox.prune(BEFORE, 100)) for _ in range(2)]
    kept = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert removed == [2, 0]
    assert [event.sequence for event in kept] == list(range(3, 11))


async def test_a_bounded_round_of_pruning_goes_on_with_the_next_organization(
    database: Database, organization_id: str
) -> None:
    """The limit is for all of them together."""
    other = (await database.write(lambda: organizations.add("another", None))).id
    await append(database, organization_id, *range(5))
    await append(database, other, *range(5))

    removed = [await database.write(lambda: outbox.prune("9999", 3)) for _ in range(4)]

    assert removed == [3, 3, 2, 0]
