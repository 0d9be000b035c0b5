import asyncio
import subprocess
import sys
import threading
from functools import partial
from itertools import count

import pytest

from persistence import contacts, organizations, outbox
from persistence.arrivals import Steps
from persistence.database import Database, Follower, open_database
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
        woken = await follower.run(follower.wait(PATIENCE_SECONDS))

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
async def test_whoever_keeps_the_loop_may_look_what_came(
    database: Database, database_url: str, organization_id: str
) -> None:
    """The next steps are taken at once: who follows hears of a commit, and reads it, before the loop has its turn."""
    found: list[int] = []

    def steps(follower: Follower, cursor: outbox.Cursor) -> Steps[None]:
        yield from follower.wait(PATIENCE_SECONDS)
        passage = yield from follower.read(outbox.following(cursor, 10))
        found.extend(event.sequence for event in passage.events)

    async with database.follow() as follower:
        await until_quiet(follower)
        running = asyncio.create_task(follower.run(steps(follower, await database.read(outbox.tail_position))))
        await asyncio.sleep(0)
        follower.look()
        before = list(found)
        commit_elsewhere(database_url, organization_id)
        while not found:
            follower.look()
        await running

    assert (before, found) == ([], [1])


@pytest.mark.processes
async def test_what_comes_while_the_steps_are_being_cancelled_is_for_the_next(
    database: Database, database_url: str, organization_id: str
) -> None:
    """Nobody takes a step any more, and nothing is the worse for it."""
    async with database.follow() as follower:
        await until_quiet(follower)
        running = asyncio.create_task(follower.run(follower.wait(PATIENCE_SECONDS)))
        await asyncio.sleep(0)
        running.cancel()
        commit_elsewhere(database_url, organization_id)
        follower.look()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert await follower.run(follower.wait(PATIENCE_SECONDS)) != ()


async def test_what_follows_a_step_is_done_again_until_nothing_is_left(database: Database) -> None:
    """And the others have their turn in between."""
    turns: list[str] = []

    def steps() -> Steps[str]:
        turns.append("step")
        yield 0.05
        return "done"

    def then() -> bool:
        turns.append("then")
        asyncio.get_running_loop().call_soon(turns.append, "other")
        return turns.count("then") < 3

    async with database.follow() as follower:
        result = await follower.run(steps(), then)

    assert result == "done"
    assert turns == ["step", "then", "other", "then", "other", "then", "other"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_failure_of_what_follows_a_step_ends_the_steps(database: Database, turn: int) -> None:
    """At once or when it is done again; and the next to run is not disturbed."""
    is_open, turns = [True], count(1)

    def steps() -> Steps[None]:
        try:
            while True:
                yield 5
        finally:
            is_open.clear()

    def then() -> bool:
        if next(turns) == turn:
            raise ValueError("no")
        return True

    async with database.follow() as follower:
        with pytest.raises(ValueError, match="no"):
            await follower.run(steps(), then)
        quiet = await follower.run(follower.wait(0.1))

    assert not is_open
    assert quiet in ((), None)


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
