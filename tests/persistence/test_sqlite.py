import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from domain.errors import ConfigurationError, Overloaded
from persistence import organizations, readiness
from persistence.database import Database, open_database
from persistence.models import Contact, Organization
from persistence.units import engine as running_engine
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def engine() -> str:
    """Run these on SQLite alone."""
    return "sqlite"


async def test_a_locked_database_is_reported_and_serves_again_when_it_is_free(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that cannot get the lock fails as Overloaded and stores nothing; the next one succeeds."""
    blocker = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(Overloaded):
        await database.write(lambda: organizations.add("Blocked", None))
    blocker.execute("ROLLBACK")
    blocker.close()
    await database.write(lambda: organizations.add("Free", None))
    names = await database.read(lambda: [row.name for row in Organization.select()])

    assert names == ["Free"]


async def test_a_full_disk_fails_the_write_and_keeps_no_part_of_it(database: Database, organization_id: str) -> None:
    """A unit that outgrows the space there is fails whole, and smaller ones go on."""
    await database.write(lambda: running_engine().pragma("max_page_count", 1))  # the file as it is

    with pytest.raises(Overloaded):
        await database.write(lambda: [organizations.add("x" * 200, None) for _ in range(20_000)])
    await database.write(lambda: running_engine().pragma("max_page_count", 1_000_000))
    await database.write(lambda: organizations.add("Small", None))
    names = await database.read(lambda: [row.name for row in Organization.select()])

    assert names == ["Acme", "Small"]


async def test_a_commit_is_noticed_even_when_its_hint_is_lost(
    database: Database, organization_id: str, tmp_path: Path
) -> None:
    """A writer that wakes nobody (here the sqlite3 module itself) is found by polling."""
    async with database.follow() as follower:
        await follower.wait(0.1)
        stranger = sqlite3.connect(tmp_path / "relay.db")
        stranger.execute("UPDATE organization SET name = 'Renamed'")
        stranger.commit()
        stranger.close()

        assert await follower.wait(PATIENCE_SECONDS) is None


async def test_a_listener_that_died_is_forgotten(database: Database) -> None:
    """The socket of a process that was killed does not disturb writers."""
    async with database.follow() as dead:
        dead._wake_ups._socket.close()  # type: ignore[attr-defined]
        await database.write(lambda: organizations.add("One", None))
        await database.write(lambda: organizations.add("Two", None))

    assert await database.read(lambda: Organization.select().count()) == 2


def test_a_place_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    """The error names the place and the settings that change it."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"cannot be opened.*DATABASE_URL or DATA_DIR"):
        open_database(f"sqlite:///{tmp_path}/file/relay.db")


@pytest.mark.parametrize("url", ["mysql://localhost/relay", "relay.db", "sqlite://"])
def test_an_engine_we_do_not_know_is_named(url: str) -> None:
    """A bad URL says which form is expected."""
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        open_database(url)


@pytest.mark.processes
async def test_everything_acknowledged_survives_sigkill(database_url: str, tmp_path: Path) -> None:
    """What a killed process reported as written is there afterwards."""
    script = (
        "import asyncio, sys; from persistence.database import open_database; from persistence import organizations\n"
        "async def main():\n"
        "    database = open_database(sys.argv[1]); database.migrate()\n"
        "    while True:\n"
        "        writes = [database.write(lambda: organizations.add('x', None).id) for _ in range(8)]\n"
        "        rows = await asyncio.gather(*writes)\n"
        "        print(*rows, flush=True)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, database_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged: set[str] = set()
    while len(acknowledged) < 400:
        acknowledged.update((await process.stdout.readline()).decode().split())
    process.kill()
    acknowledged.update((await process.stdout.read()).decode().rpartition("\n")[0].split())
    await process.wait()
    with sqlite3.connect(tmp_path / "relay.db") as reader:
        stored = {row[0] for row in reader.execute("SELECT id FROM organization")}
    reader.close()

    assert acknowledged <= stored


def temporary_files() -> list[str]:
    """Return the temporary files of SQLite that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [name for name in found if "etilqs" in name]


async def test_a_unit_writes_no_temporary_file(database: Database, organization_id: str) -> None:
    """What it may have to restore is kept in memory: a file costs time, and nobody would erase a person in it."""
    await database.write(lambda: [organizations.add("x" * 200, None) for _ in range(1000)] and None)

    def unit() -> list[str]:
        Organization.update(name="y" * 200).execute()
        return temporary_files()

    assert await database.write(unit) == []


async def test_every_connection_is_set_up_alike(database: Database) -> None:
    """A commit is on the disk, no row refers to nothing, and the lock of another process is waited for."""

    def settings() -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return {name: running_engine().pragma(name) for name in names}

    found = [await run(settings) for run in (database.read, database.read_aside, database.write)]

    assert found == [{"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}] * 3


@contextlib.asynccontextmanager
async def busy_writer(database: Database) -> AsyncIterator[None]:
    """Keep the writer at work, so that the units of the block share the next commit."""
    begun, may_end = threading.Event(), threading.Event()

    def unit() -> None:
        begun.set()
        assert may_end.wait(20)

    writing = asyncio.ensure_future(database.write(unit))
    await asyncio.to_thread(begun.wait, 20)
    yield
    await asyncio.sleep(0)
    may_end.set()
    await writing


async def written_together(database: Database, units: Sequence[Callable[[], object]]) -> list[object | BaseException]:
    """Write units in one commit; return what became of each."""
    async with busy_writer(database):
        writing = [asyncio.ensure_future(database.write(unit)) for unit in units]
    return list(await asyncio.gather(*writing, return_exceptions=True))


async def test_a_commit_that_fails_is_told_to_every_unit_in_it(database: Database, organization_id: str) -> None:
    """Nothing of them is stored, so nobody hears that it is."""

    def referring_to_nothing() -> None:
        running_engine().execute_sql("PRAGMA defer_foreign_keys = 1")
        Contact.create(organization="0" * 24, phone_number="+14165550123", name="x")

    mine = [lambda: organizations.add("One", None), referring_to_nothing, lambda: organizations.add("Two", None)]
    done = await written_together(database, mine)
    names = await database.read(lambda: [row.name for row in Organization.select()])

    assert [isinstance(each, Exception) for each in done] == [True] * 3
    assert names == ["Acme"]


async def test_what_is_acknowledged_beside_a_unit_that_fills_the_disk_is_stored(
    database: Database, organization_id: str
) -> None:
    """Whether the engine undid that unit alone or everything, nobody is told what is not so."""
    await database.write(lambda: running_engine().pragma("max_page_count", 1))  # the file as it is
    mine = [
        lambda: organizations.add("One", None),
        lambda: [organizations.add("x" * 200, None) for _ in range(20_000)],
        lambda: organizations.add("Two", None),
    ]
    done = await written_together(database, mine)
    stored = await database.read(lambda: {row.name for row in Organization.select()})

    assert isinstance(done[1], Exception)
    assert {one.name for one in done if isinstance(one, Organization)} == stored - {"Acme"}


def test_a_caller_whose_loop_is_closed_leaves_the_writer_at_work(tmp_path: Path, database_url: str) -> None:
    """A command that was interrupted does not keep the next one from writing."""
    database = open_database(database_url)
    begun, may_end = threading.Event(), threading.Event()

    def unit() -> None:
        begun.set()
        assert may_end.wait(20)

    async def interrupted() -> None:
        writing = asyncio.ensure_future(database.write(unit))
        await asyncio.to_thread(begun.wait, 20)
        assert not writing.done()

    asyncio.run(interrupted())
    may_end.set()
    next_one = database.write(lambda: organizations.add("Next", None).name)

    assert asyncio.run(asyncio.wait_for(next_one, 10)) == "Next"
    database.close()


async def test_readiness_is_asked_by_a_write(database: Database, tmp_path: Path) -> None:
    """A page goes to the disk, so a disk that is full is not ready; nothing of the content changes."""
    with contextlib.closing(sqlite3.connect(tmp_path / "relay.db")) as stranger:
        before, content = stranger.execute("PRAGMA data_version").fetchone(), list(stranger.iterdump())
        await database.write(readiness.write_something)

        assert stranger.execute("PRAGMA data_version").fetchone() != before
        assert list(stranger.iterdump()) == content
