import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

import peewee
import psycopg
import pytest

from domain.errors import CommitUnknown, ConfigurationError, Overloaded
from domain.events import Event, EventName
from domain.statuses import MessageStatus
from persistence import contacts, conversations, messages, organizations, outbox, units
from persistence.database import Database, open_database
from persistence.models import Organization
from persistence.postgresql import ServerDatabase
from persistence.statements import Given, Statement
from tests.support.following import until_quiet
from tests.support.waiting import PATIENCE_SECONDS, patience

R = TypeVar("R")

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
CUT = f"SELECT pg_terminate_backend(pid) {OTHERS}"

pytestmark = pytest.mark.postgresql


@pytest.fixture
def engine() -> str:
    """Run these on PostgreSQL alone."""
    return "postgresql"


def happened(index: int) -> Event:
    return Event(EventName.NOTE_CREATED, {"index": index})


async def test_whoever_finds_every_connection_busy_is_told_so(database_url: str) -> None:
    """The pool is bounded, and waiting for it too; afterwards it serves again."""
    database = ServerDatabase(database_url, connections=2, wait_seconds=0.2)
    release, both = threading.Event(), threading.Barrier(3, timeout=PATIENCE_SECONDS)

    def occupy() -> None:
        both.wait()
        release.wait(PATIENCE_SECONDS)

    busy = [asyncio.ensure_future(database.read(occupy)) for _ in range(2)]
    await asyncio.to_thread(both.wait)

    with pytest.raises(Overloaded, match="busy"):
        await database.read(lambda: True)
    release.set()
    await asyncio.gather(*busy)
    assert await database.read(lambda: True)
    database.close()


async def test_a_connection_that_the_server_closed_is_replaced(database: Database, organization_id: str) -> None:
    """After all of them are cut, reads go on at once and writes at the latest on the second try."""
    await asyncio.gather(*[database.read(lambda: outbox.head(organization_id)) for _ in range(20)])
    await database.read(lambda: units.engine().execute_sql(CUT).fetchall())
    head = await database.read(lambda: outbox.head(organization_id))
    for _ in range(10):
        try:
            await database.write(lambda: outbox.append(organization_id, [happened(1)]))
            break
        except Overloaded:
            continue

    assert head == 0
    assert await database.read(lambda: outbox.head(organization_id)) == 1


async def test_a_deadlock_is_tried_again_until_both_units_are_done(database: Database) -> None:
    """The server undoes one of the two, and we run it once more."""
    one, two = [(await database.write(lambda: organizations.add("x", None))).id for _ in range(2)]
    met = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def unit(first: str, second: str, meet: Callable[[], object]) -> None:
        outbox.append(first, [happened(1)])
        meet()
        outbox.append(second, [happened(2)])

    def meet() -> None:
        # Only the first attempts meet; the repeated one comes alone.
        try:
            met.wait(1)
        except threading.BrokenBarrierError:
            return

    await asyncio.gather(database.write(lambda: unit(one, two, meet)), database.write(lambda: unit(two, one, meet)))
    heads = await database.read(outbox.heads)

    assert heads == {one: 2, two: 2}


async def test_events_committed_in_another_order_than_they_began_are_all_followed_in_sequence(
    database: Database, database_url: str
) -> None:
    """Ids become visible out of order between organizations; whoever follows the log misses none."""
    first, second = [(await database.write(lambda: organizations.add("x", None))).id for _ in range(2)]
    cursor = await database.read(outbox.tail_position)
    holding, release = threading.Event(), threading.Event()

    def late() -> None:
        outbox.append(first, [happened(1)])
        holding.set()
        release.wait(PATIENCE_SECONDS)

    async with database.follow() as follower:
        slow = asyncio.ensure_future(database.write(late))
        await asyncio.to_thread(holding.wait, PATIENCE_SECONDS)
        await database.write(lambda: outbox.append(second, [happened(2)]))
        cursor, early, _ = await outbox.following(follower.rows, cursor, 50)
        release.set()
        await slow
        await database.write(lambda: outbox.append(second, [happened(3)]))
        cursor, rest, _ = await outbox.following(follower.rows, cursor, 50)

    assert [(event.organization_id, event.sequence) for event in early] == [(second, 1)]
    assert sorted((event.organization_id, event.sequence) for event in rest) == sorted([(first, 1), (second, 2)])


async def test_eight_writers_that_hold_their_transactions_open_lose_no_event(database: Database) -> None:
    """Whatever the interleaving, every organization's sequence arrives whole and in order."""
    ids = [(await database.write(lambda: organizations.add("x", None))).id for _ in range(4)]
    cursor = await database.read(outbox.tail_position)
    seen: dict[str, list[int]] = {organization: [] for organization in ids}

    def unit(index: int) -> None:
        outbox.append(ids[index % 4], [happened(index)])
        units.engine().execute_sql("SELECT pg_sleep(%s)", (index % 5 / 1000,))

    writing = asyncio.gather(*[database.write(partial(unit, index)) for index in range(400)])
    async with database.follow() as follower:
        while True:
            finished = writing.done()
            cursor, events, _ = await outbox.following(follower.rows, cursor, 50)
            for event in events:
                seen[event.organization_id].append(event.sequence)
            if finished and not events:
                break
    await writing

    assert seen == {organization: list(range(1, 101)) for organization in ids}


async def test_a_commit_elsewhere_wakes_even_when_its_notification_is_lost(
    database: Database, database_url: str, organization_id: str
) -> None:
    """A writer that notifies nobody (here psycopg itself) is found by polling."""
    async with database.follow() as follower:
        await until_quiet(follower)
        with psycopg.connect(database_url) as stranger:
            stranger.execute("UPDATE organization SET name = 'Renamed'")

        assert await follower.wait(PATIENCE_SECONDS) is None


async def test_a_notification_names_the_organization(database: Database, organization_id: str) -> None:
    """Whoever follows the log need not ask all the others."""
    other = (await database.write(lambda: organizations.add("x", None))).id
    async with database.follow() as follower:
        await until_quiet(follower)
        await database.write(lambda: outbox.append(organization_id, [happened(1)]))
        named = await follower.wait(PATIENCE_SECONDS)
        await database.write(lambda: outbox.append(other, [happened(1)]))
        passage = await outbox.following(follower.rows, {}, 10, named)

    assert named == {organization_id}
    assert [event.organization_id for event in passage.events] == [organization_id]
    assert passage.cursor == {organization_id: 1}


async def test_a_notification_without_a_name_may_be_about_anybody(database: Database, database_url: str) -> None:
    """Whoever notifies by hand, or comes from before names, is heard too."""
    async with database.follow() as follower:
        await until_quiet(follower)
        with psycopg.connect(database_url, autocommit=True) as stranger:
            stranger.execute("NOTIFY relay_events")

        assert await follower.wait(PATIENCE_SECONDS) is None


def expression(what: peewee.Node) -> Statement:
    """Return a statement that selects one expression."""
    return Statement(lambda: peewee.Select(None, [what]))


async def test_a_follower_asks_more_than_a_socket_takes_at_once(database: Database) -> None:
    """A statement of megabytes goes out as the server takes it, and so does the answer come in."""
    text = "ä" * 10_000_000
    async with database.follow() as follower:
        (answer,) = await follower.rows(expression(peewee.fn.UPPER(Given("text"))), text=text)

    assert answer == ("Ä" * 10_000_000,)


async def test_a_follower_says_what_the_server_refused_and_goes_on(database: Database, organization_id: str) -> None:
    """An error is the answer to one statement; the next is answered, and notifications come."""
    async with database.follow() as follower:
        with pytest.raises(psycopg.Error, match="division by zero"):
            await follower.rows(expression(peewee.SQL("1 / 0")))
        answer = await follower.rows(expression(peewee.fn.LENGTH(Given("text"))), text="four")
        await until_quiet(follower)
        await database.write(lambda: outbox.append(organization_id, [happened(1)]))
        named = await follower.wait(PATIENCE_SECONDS)

    assert (answer, named) == ([(4,)], {organization_id})


async def test_a_notification_during_a_statement_is_kept_for_the_next_wait(
    database: Database, organization_id: str
) -> None:
    """It comes with the statement's answer, and still says whose event there is."""
    async with database.follow() as follower:
        await until_quiet(follower)
        reading = asyncio.create_task(follower.rows(expression(peewee.fn.pg_sleep(0.2))))
        await database.write(lambda: outbox.append(organization_id, [happened(1)]))
        assert not reading.done()
        await reading

        assert await follower.wait(0) == {organization_id}


async def test_a_follower_does_not_wait_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing at all is given up."""
    monkeypatch.setattr("persistence.notifications._SILENCE_SECONDS", 0.1)
    async with database.follow() as follower:
        with pytest.raises(TimeoutError):
            await follower.rows(expression(peewee.fn.pg_sleep(5)))


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_follower_whose_connection_is_cut_says_so(
    database: Database, database_url: str, is_waiting: bool
) -> None:
    """Whether it waited just then or not; it does not go on as if nothing came."""
    async with database.follow() as follower:
        await until_quiet(follower)
        waiting = asyncio.ensure_future(follower.wait(PATIENCE_SECONDS)) if is_waiting else None
        await asyncio.sleep(0)
        with psycopg.connect(database_url, autocommit=True) as stranger:
            stranger.execute(CUT)
            while stranger.execute(f"SELECT {OTHERS}").fetchall():
                pass
        for _ in range(10):
            await asyncio.sleep(0)

        with pytest.raises(psycopg.OperationalError, match=r"terminating|closed"):
            await (waiting or follower.wait(PATIENCE_SECONDS))


async def test_two_units_that_create_the_same_contact_end_with_one(database: Database, organization_id: str) -> None:
    """The unique index decides, not a look beforehand."""
    ids = await asyncio.gather(
        *[database.write(lambda: contacts.upsert(organization_id, "+14165550100", None).id) for _ in range(30)]
    )

    assert len(set(ids)) == 1


async def test_text_that_the_engine_refuses_fails_alone(database: Database) -> None:
    """A unit that cannot be stored leaves the connection good for the next."""
    with pytest.raises(Exception, match="value too long"):
        await database.write(lambda: organizations.add("x" * 201, None))
    await database.write(lambda: organizations.add("y", None))

    assert await database.read(lambda: [row.name for row in Organization.select()]) == ["y"]


def test_a_server_that_cannot_be_reached_is_one_clear_sentence() -> None:
    """The address is named, the password is not."""
    with pytest.raises(ConfigurationError, match="cannot be reached") as caught:
        open_database("postgresql://relay:hunter2@127.0.0.1:1/relay")

    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# Units of one organization that wait share a commit.


async def gathered(
    database: Database, organization_id: str, waiting: Sequence[Callable[[], object]]
) -> list[object | BaseException]:
    """Run units that all wait for one that is at work; return what became of each."""
    holding, release = threading.Event(), threading.Event()

    def first() -> None:
        outbox.append(organization_id, [happened(0)])
        holding.set()
        release.wait(PATIENCE_SECONDS)

    ahead = asyncio.ensure_future(database.write(first, of=organization_id))
    await asyncio.to_thread(holding.wait, PATIENCE_SECONDS)
    behind = [asyncio.ensure_future(database.write(unit, of=organization_id)) for unit in waiting]
    await asyncio.sleep(0)
    release.set()
    await ahead
    return list(await asyncio.gather(*behind, return_exceptions=True))


def appending(organization_id: str, index: int) -> Callable[[], str]:
    """Return a unit that appends an event and tells in which transaction it did."""

    def unit() -> str:
        outbox.append(organization_id, [happened(index)])
        (transaction,) = units.engine().execute_sql("SELECT pg_current_xact_id()::text").fetchone()
        return str(transaction)

    return unit


async def test_units_of_an_organization_that_wait_share_a_commit(database: Database, organization_id: str) -> None:
    """All that gathered while one was at work are committed at once, in the order they came."""
    done = await gathered(database, organization_id, [appending(organization_id, index) for index in range(1, 11)])
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert len(set(done)) == 1
    assert [(event.sequence, event.data) for event in events] == [
        (index + 1, f'{{"index":{index}}}') for index in range(11)
    ]


async def test_a_unit_that_fails_takes_none_of_its_group_with_it(database: Database, organization_id: str) -> None:
    """What it wrote is gone, the sequence has no hole, and only who asked for it hears of it."""

    def failing() -> None:
        outbox.append(organization_id, [happened(99)])
        raise ValueError("mine")

    def breaking_a_rule() -> None:
        outbox.append(organization_id, [happened(98)])
        Organization.insert(id=organization_id, name="twice").execute()

    mine = [appending(organization_id, 1), failing, breaking_a_rule, appending(organization_id, 2)]
    one, two, three, four = await gathered(database, organization_id, mine)
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert (one, type(two), type(three)) == (four, ValueError, peewee.IntegrityError)
    assert [(event.sequence, event.data) for event in events] == [
        (index + 1, f'{{"index":{index}}}') for index in range(3)
    ]


async def test_a_connection_that_breaks_in_a_group_keeps_nothing_of_it(
    database: Database, organization_id: str
) -> None:
    """Everybody in it is told, and the next one is served."""

    def cutting() -> None:
        units.engine().execute_sql("SELECT pg_terminate_backend(pg_backend_pid())").fetchall()

    mine = [appending(organization_id, 1), cutting, appending(organization_id, 2)]
    done = await gathered(database, organization_id, mine)
    await database.write(appending(organization_id, 3), of=organization_id)
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert [type(each) for each in done] == [Overloaded] * 3
    assert [event.data for event in events] == ['{"index":0}', '{"index":3}']


async def test_a_deadlock_in_a_group_is_resolved_without_a_loss_or_a_double(
    database: Database, database_url: str, organization_id: str
) -> None:
    """Whichever of the two the server chooses to undo, both are done once in the end."""
    contact = await database.write(lambda: contacts.upsert(organization_id, "+14165550123", None))
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM contact WHERE id = %s FOR UPDATE", (contact.id,))

        def wanting_it() -> str:
            units.engine().execute_sql("UPDATE contact SET name = 'x' WHERE id = %s", (contact.id,))
            return appending(organization_id, 2)()

        def wanting_the_organization() -> None:
            try:
                other.execute("UPDATE organization SET name = 'y' WHERE id = %s", (organization_id,))
                other.commit()
            except psycopg.errors.DeadlockDetected:
                other.rollback()

        mine = [appending(organization_id, 1), wanting_it, appending(organization_id, 3)]
        done, _ = await asyncio.gather(
            gathered(database, organization_id, mine), asyncio.to_thread(wanting_the_organization)
        )
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert all(isinstance(each, str) for each in done), done
    assert sorted(event.data for event in events) == [f'{{"index":{index}}}' for index in range(4)]
    assert [event.sequence for event in events] == [1, 2, 3, 4]


async def test_whoever_goes_away_while_waiting_leaves_the_rest_alone(database: Database, organization_id: str) -> None:
    """The unit is run all the same, as everywhere."""
    holding, release = threading.Event(), threading.Event()

    def first() -> None:
        holding.set()
        release.wait(PATIENCE_SECONDS)

    ahead = asyncio.ensure_future(database.write(first, of=organization_id))
    await asyncio.to_thread(holding.wait, PATIENCE_SECONDS)
    behind = [
        asyncio.ensure_future(database.write(appending(organization_id, index), of=organization_id))
        for index in range(3)
    ]
    await asyncio.sleep(0)
    behind[1].cancel()
    release.set()
    await ahead
    await asyncio.gather(*behind, return_exceptions=True)

    assert await database.read(lambda: outbox.head(organization_id)) == 3


async def test_a_unit_that_is_tried_again_outside_its_group_and_fails_is_a_failure(
    database: Database, organization_id: str
) -> None:
    """Its caller hears what went wrong the second time, and nothing of it is kept."""
    tries = count(1)

    def failing() -> None:
        outbox.append(organization_id, [happened(99)])
        if next(tries) == 1:
            units.engine().execute_sql("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")
        raise ValueError("mine")

    mine = [appending(organization_id, 1), failing, appending(organization_id, 2)]
    one, two, three = await gathered(database, organization_id, mine)
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert (type(one), type(two), type(three), next(tries)) == (str, ValueError, str, 3)
    assert [event.data for event in events] == [f'{{"index":{index}}}' for index in range(3)]


async def test_a_unit_that_waits_too_long_fails_with_those_behind_it(
    database: Database, database_url: str, organization_id: str
) -> None:
    """Those before it are kept; it and the rest are told to come back, and nothing of them is stored."""
    contact = await database.write(lambda: contacts.upsert(organization_id, "+14165550123", None))

    def wanting_it() -> None:
        units.engine().execute_sql("SET LOCAL lock_timeout = 1")
        units.engine().execute_sql("UPDATE contact SET name = 'x' WHERE id = %s", (contact.id,))

    mine = [appending(organization_id, 1), wanting_it, appending(organization_id, 3), appending(organization_id, 4)]
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM contact WHERE id = %s FOR UPDATE", (contact.id,))
        one, *late = await gathered(database, organization_id, mine)
    events = await database.read(lambda: outbox.after(organization_id, 0, 100))

    assert isinstance(one, str)
    assert [type(each) for each in late] == [Overloaded] * 3
    assert [event.data for event in events] == ['{"index":0}', '{"index":1}']


async def test_a_connection_that_breaks_while_committing_leaves_it_unknown(
    database: Database, database_url: str
) -> None:
    """Whoever hears that nothing was kept may throw away what belongs to it; so nobody is told that."""
    with psycopg.connect(database_url, autocommit=True) as stranger:
        stranger.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        stranger.execute(
            "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON organization "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()"
        )

    with pytest.raises(CommitUnknown):
        await database.write(lambda: organizations.add("x", None))
    assert await database.read(organizations.everyone) == []


async def test_a_caller_that_goes_away_keeps_its_connection_until_its_unit_is_over(database_url: str) -> None:
    """The bound holds however impatient callers are."""
    database = ServerDatabase(database_url, connections=1, wait_seconds=0.1)
    begun, may_end = threading.Event(), threading.Event()

    def unit() -> bool:
        begun.set()
        return may_end.wait(20)

    first = asyncio.ensure_future(database.read(unit))
    await asyncio.to_thread(begun.wait, 20)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    try:
        async with patience():
            with pytest.raises(Overloaded, match="busy"):
                await database.read(lambda: True)
    finally:
        may_end.set()
        database.close()


async def test_a_session_has_limits_of_its_own(database: Database) -> None:
    """One that is stuck ends by itself, whether it works, waits for a lock, or was left alone inside a transaction."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    def limits() -> list[str]:
        return [units.engine().execute_sql(f"SHOW {name}").fetchone()[0] for name in names]

    assert [await database.read(limits), await database.write(limits)] == [["10s", "5s", "15s"]] * 2


async def test_every_organization_of_a_unit_is_announced(database: Database, organization_id: str) -> None:
    """Whoever follows hears of both in one go."""
    other = (await database.write(lambda: organizations.add("x", None))).id

    def both() -> None:
        for one in (organization_id, other):
            outbox.append(one, [happened(1)])

    async with database.follow() as follower:
        await until_quiet(follower)
        await database.write(both)
        named: set[str] = set()
        async with patience():
            while len(named) < 2:
                named.update(await follower.wait(PATIENCE_SECONDS) or ())

    assert named == {organization_id, other}


# Two units at once: whoever comes second waits, and finds what the first one left.


async def until_it_waits(database_url: str, unit: "asyncio.Future[Any]") -> None:
    """Return when the unit waits for a lock; one that is over never did."""
    waiting = f"SELECT 1 {OTHERS} AND wait_event_type = 'Lock'"
    async with patience(), await psycopg.AsyncConnection.connect(database_url, autocommit=True) as stranger:
        while not unit.done():
            if await (await stranger.execute(waiting)).fetchall():
                return


@contextlib.asynccontextmanager
async def left_open(database: Database, unit: Callable[[], R]) -> "AsyncIterator[asyncio.Future[R]]":
    """Run the unit, and leave its transaction open until the block is over."""
    begun, may_end = threading.Event(), threading.Event()

    def first() -> R:
        result = unit()
        begun.set()
        assert may_end.wait(20)
        return result

    running = asyncio.ensure_future(database.write(first))
    await asyncio.to_thread(begun.wait, 20)
    try:
        yield running
    finally:
        may_end.set()
        await running


async def test_units_that_hold_an_organization_come_one_after_the_other(
    database: Database, database_url: str, organization_id: str
) -> None:
    """The second sees all that the first wrote; an organization that nobody holds is not waited for."""
    other = (await database.write(lambda: organizations.add("x", None))).id

    def making() -> None:
        outbox.hold(organization_id)
        contacts.upsert(organization_id, "+14165550123", None)

    def looking() -> int:
        outbox.hold(organization_id)
        return contacts.count(organization_id)

    async with left_open(database, making):
        await asyncio.wait_for(database.write(lambda: outbox.hold(other)), 10)
        second = asyncio.ensure_future(database.write(looking))
        await until_it_waits(database_url, second)

    assert await second == 1


async def test_of_two_units_that_make_a_conversation_the_second_takes_the_first_ones(
    database: Database, database_url: str, organization_id: str
) -> None:
    """There is one, and both know its id."""
    contact = await database.write(lambda: contacts.upsert(organization_id, "+14165550123", None))

    def making() -> str:
        return str(conversations.find_or_create(organization_id, contact.id, "sms", "+12362320246").id)

    async with left_open(database, making) as first:
        second = asyncio.ensure_future(database.write(making))
        await until_it_waits(database_url, second)

    assert await second == await first


async def test_of_two_reports_about_a_message_the_second_finds_it_moved(
    database: Database, database_url: str, organization_id: str
) -> None:
    """What was delivered does not fail afterwards, and only one of them is announced."""
    contact = await database.write(lambda: contacts.upsert(organization_id, "+14165550123", None))

    def queued() -> str:
        conversation = conversations.find_or_create(organization_id, contact.id, "sms", "+12362320246")
        text = {"author": "ai", "text": "x", "from_number": "+1", "to_number": "+2", "provider": "console"}
        return str(messages.queue(organization_id, text | {"contact": contact.id, "conversation": conversation.id}).id)

    message_id = await database.write(queued)

    def report(status: MessageStatus) -> bool:
        return messages.advance(organization_id, message_id, status) is not None

    async with left_open(database, partial(report, MessageStatus.DELIVERED)) as first:
        second = asyncio.ensure_future(database.write(partial(report, MessageStatus.FAILED)))
        await until_it_waits(database_url, second)

    assert (await first, await second) == (True, False)
    message = await database.read(lambda: messages.get(organization_id, message_id))
    assert message is not None
    assert message.status == "delivered"
