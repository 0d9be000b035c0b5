import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from persistence import contacts, organizations, outbox
from persistence.database import Database, open_database
from persistence.models import Contact
from tests.support.following import until_quiet
from tests.support.waiting import PATIENCE_SECONDS, patience

NUMBERS = [f"+1416555{index:04}" for index in range(40)]


async def test_a_unit_that_fails_takes_nothing_with_it_and_its_neighbours_nothing_either(
    database: Database, organization_id: str
) -> None:
    """Units that happen to share a commit fail and succeed on their own."""

    def unit(number: str) -> str:
        contact = contacts.upsert(organization_id, number, None)
        if number.endswith("7"):
            raise ValueError(number)
        return str(contact.id)

    results = await asyncio.gather(
        *[database.write(partial(unit, number)) for number in NUMBERS], return_exceptions=True
    )
    stored = await database.read(lambda: {contact.phone_number for contact in Contact.select()})

    assert [isinstance(result, ValueError) for result in results] == [n.endswith("7") for n in NUMBERS]
    assert stored == {number for number in NUMBERS if not number.endswith("7")}


async def test_a_unit_sees_what_the_one_before_it_wrote(database: Database, organization_id: str) -> None:
    """Two units that create the same contact at once end with one contact."""
    ids = await asyncio.gather(
        *[database.write(lambda: contacts.upsert(organization_id, NUMBERS[0], None).id) for _ in range(20)]
    )

    assert len(set(ids)) == 1


async def test_nobody_waits_for_a_read_that_takes_long(database: Database, organization_id: str) -> None:
    """Others read and write meanwhile, and what is read aside is what was committed before."""
    may_end = threading.Event()

    def long() -> int:
        assert may_end.wait(PATIENCE_SECONDS)
        return Contact.select().count()

    await database.write(lambda: contacts.upsert(organization_id, NUMBERS[0], None))
    reading = asyncio.create_task(database.read_aside(long))
    before = await database.read(lambda: Contact.select().count())
    await database.write(lambda: contacts.upsert(organization_id, NUMBERS[1], None))
    was_reading = not reading.done()
    may_end.set()

    assert (before, was_reading, await reading) == (1, True, 2)


@pytest.mark.processes
async def test_a_commit_of_another_process_wakes_a_listener(database: Database, database_url: str) -> None:
    """Whoever waits is told of commits it did not make itself."""
    script = (
        "import asyncio, sys; from persistence.database import open_database; from persistence import organizations\n"
        "database = open_database(sys.argv[1])\n"
        "asyncio.run(database.write(lambda: organizations.add('Other', None)))\n"
        "database.close()\n"
    )
    async with database.follow() as follower:
        await until_quiet(follower)
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, database_url], check=True)
        woken = await follower.wait(PATIENCE_SECONDS)

    assert woken is None


def commit_elsewhere(database_url: str, organization_id: str) -> None:
    """Commit an event in another process."""
    script = (
        "import asyncio, sys; from persistence.database import open_database; from persistence import outbox\n"
        "from domain.events import Event, EventName\n"
        "database = open_database(sys.argv[1])\n"
        "event = Event(EventName.NOTE_CREATED, {})\n"
        "asyncio.run(database.write(lambda: outbox.append(sys.argv[2], [event])))\n"
        "database.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, database_url, organization_id], check=True)


@pytest.mark.processes
async def test_a_follower_that_does_not_wait_finds_what_was_committed(
    database: Database, database_url: str, organization_id: str
) -> None:
    """With no seconds to wait it says at once whether something may have been committed, and only once for each."""
    async with database.follow() as follower:
        await until_quiet(follower)
        cursor = await database.read(outbox.tail_position)
        before = await follower.wait(0)
        await asyncio.to_thread(commit_elsewhere, database_url, organization_id)
        async with patience():
            while await follower.wait(0) == ():
                pass
        passage = await outbox.following(follower.rows, cursor, 10)
        after = await follower.wait(0)

    assert (before, after) == ((), ())
    assert [event.sequence for event in passage.events] == [1]


@pytest.mark.processes
async def test_a_commit_during_a_cancelled_wait_is_found_by_the_next(
    database: Database, database_url: str, organization_id: str
) -> None:
    """Cancelling a wait loses no commit."""
    async with database.follow() as follower:
        await until_quiet(follower)
        waiting = asyncio.create_task(follower.wait(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        commit_elsewhere(database_url, organization_id)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert await follower.wait(PATIENCE_SECONDS) != ()


async def test_events_of_a_failed_unit_leave_no_hole_in_the_sequence(database: Database, organization_id: str) -> None:
    """A sequence taken by a unit that fails is taken again by the next."""
    from domain.events import Event, EventName

    def unit(index: int) -> None:
        outbox.append(organization_id, [Event(EventName.NOTE_CREATED, {"index": index})])
        if index % 3 == 0:
            raise ValueError(index)

    await asyncio.gather(*[database.write(partial(unit, index)) for index in range(60)], return_exceptions=True)
    events = await database.read(lambda: outbox.after(organization_id, 0, 1000))

    assert [event.sequence for event in events] == list(range(1, 41))


async def test_closing_waits_for_the_units_that_were_asked_for(database_url: str) -> None:
    """The unit at work and those behind it are stored and answered before the database is closed."""
    database = open_database(database_url)
    begun, may_end = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert may_end.wait(20)
        organizations.add("first", None)

    writing = [asyncio.ensure_future(database.write(first))]
    await asyncio.to_thread(begun.wait, 20)
    writing += [asyncio.ensure_future(database.write(partial(_add, name))) for name in ("second", "third")]
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(database.close))
    # It must not be over before the units are; this is how long it may take to be over too early.
    await asyncio.wait({closing}, timeout=0.2)
    is_over = closing.done()
    may_end.set()
    async with patience():
        await asyncio.gather(closing, *writing)
    again = open_database(database_url)
    names = await again.read(lambda: {one.name for one in organizations.everyone()})
    again.close()

    assert not is_over
    assert names == {"first", "second", "third"}


def _add(name: str) -> None:
    organizations.add(name, None)
