"""The database goes back under a broadcaster, and whoever listens is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from actions.begin_new_epochs import begin_new_epochs
from domain.epochs import generation
from persistence import models, outbox, units
from realtime import tail
from realtime.recollection import Recollection
from tests.realtime.conftest import BOTH_ENGINES, Radio, Station, World, make_event, unhurried
from tests.support.published_events import Frame
from tests.support.waiting import PATIENCE_SECONDS

TABLES = ("log_checkpoint", "event", "organization")


class Backup:
    """Everything about the logs as it was, to be put back into the running database."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self._rows = rows

    @classmethod
    async def of(cls, world: World) -> "Backup":
        def unit() -> dict[str, list[dict[str, Any]]]:
            return {name: list(model(name).select().dicts()) for name in TABLES}

        return cls(await world.database.read(unit))

    async def restore(self, world: World, then: Callable[[], object] = bool) -> None:
        """Put it back, and do something else in the same transaction."""

        def unit() -> None:
            models.Event.delete().execute()
            models.LogCheckpoint.delete().execute()
            for row in self._rows["organization"]:
                there = models.Organization.id == row["id"]
                changes = {"event_sequence": row["event_sequence"], "epoch": row["epoch"]}
                models.Organization.update(changes).where(there).execute()
            for name in ("event", "log_checkpoint"):
                if self._rows[name]:
                    model(name).insert_many(self._rows[name]).execute()
            then()

        await world.database.write(unit)


def model(name: str) -> Any:
    return next(each for each in models.MODELS if each._meta.table_name == name)


async def epoch_of(world: World) -> str:
    standing = await world.database.read(lambda: outbox.standing(world.ours))
    assert standing
    return standing.epoch


async def head_of(world: World) -> int:
    return await world.database.read(lambda: outbox.head(world.ours))


async def own_list(world: World) -> list[int]:
    return [event.sequence for event in await world.database.read(lambda: outbox.after(world.ours, 0, 1000))]


async def told(radio: Radio) -> dict[str, Any]:
    """Return the next gap; what comes before it is of the log that is gone."""
    while (frame := await radio.next())["type"] != "gap":
        pass
    return frame


@BOTH_ENGINES
async def test_a_listener_is_told_when_the_database_goes_back_on_an_idle_log(world: World) -> None:
    """Without any event; and then it gets what is committed under sequences that were given before."""
    await world.commit_many(3)
    async with world.broadcaster() as station, station.listener() as radio:
        hello = await radio.next()
        backup = await Backup.of(world)
        await world.commit_many(2)
        assert await radio.until(5) == [4, 5]
        await backup.restore(world)
        gap = await radio.next()
        await world.commit_many(2)

        assert gap == {"type": "gap", "epoch": gap["epoch"], "since": 5, "oldest": 4, "reason": "epoch"}
        assert gap["epoch"] == await epoch_of(world) != hello["epoch"]
        assert await radio.until(5) == [4, 5]
        async with station.listener(query="?since=0") as other:
            assert (await other.next())["epoch"] == gap["epoch"]
            assert await other.until(5) == await own_list(world)


@BOTH_ENGINES
async def test_a_listener_is_told_when_the_log_has_passed_what_was_read_before_anybody_looked(world: World) -> None:
    """The database goes back and further on than it was, in one transaction."""
    await world.commit_many(3)
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        backup = await Backup.of(world)
        await world.commit_many(2)
        await radio.until(5)
        await backup.restore(world, lambda: outbox.append(world.ours, [make_event() for _ in range(6)]))
        gap = await told(radio)
        await world.commit(make_event())

        assert (gap["reason"], gap["oldest"]) == ("epoch", 10)
        assert await radio.until(10) == [10]


@BOTH_ENGINES
async def test_what_was_read_after_the_checkpoint_is_recognised(world: World) -> None:
    """A backup that is newer than the checkpoint differs in the newest event that was read."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await world.commit(make_event())
        await radio.until(1)

        def unit() -> None:
            chosen = (models.Event.organization == world.ours) & (models.Event.sequence == 1)
            models.Event.update(at="2020-01-01T00:00:00.000Z").where(chosen).execute()

        await world.database.write(unit)
        assert (await radio.next())["reason"] == "epoch"


@BOTH_ENGINES
async def test_a_second_checkpoint_is_what_tells(world: World) -> None:
    """The logs are as long as they were and hold the same, but an older mark is there: nobody can say what was lost."""
    await world.commit(make_event())
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        backup = await Backup.of(world)
        await station.server._continuity._write_checkpoint()
        await backup.restore(world)
        assert (await radio.next())["reason"] == "epoch"


@BOTH_ENGINES
async def test_a_database_in_another_place_is_another_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the promotion of a standby, which the drill does for real."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()

        async def elsewhere() -> str:
            return "elsewhere"

        monkeypatch.setattr(world.database, "place", elsewhere)
        assert (await radio.next())["reason"] == "epoch"


@BOTH_ENGINES
async def test_a_listener_that_comes_back_with_another_epoch_is_told_before_anything_else(world: World) -> None:
    """By the address, by `auth` and by `resume`; with the epoch it has, or without one, it goes on."""
    await world.commit_many(3)
    other, own = "0" * 24, await epoch_of(world)
    gap = {"type": "gap", "epoch": own, "since": 1, "oldest": 4, "reason": "epoch"}
    async with world.broadcaster() as station:
        async with station.listener(query=f"?since=1&epoch={other}") as radio:
            hello = await radio.next()
            assert (hello["since"], hello["epoch"], await radio.next()) == (3, own, gap)
            assert (await radio.ask(type="resume", since=1, epoch=own))["since"] == 1
            assert await radio.until(3) == [2, 3]
            assert (await radio.ask(type="resume", since=1, epoch=other))["since"] == 3
            assert await radio.next() == gap
        async with station.listener(None) as radio:
            assert (await radio.ask(type="auth", token="ours", since=1, epoch=other))["since"] == 3
            assert await radio.next() == gap
        for query in (f"?since=1&epoch={own}", "?since=1"):
            async with station.listener(query=query) as radio:
                assert (await radio.next())["since"] == 1
                assert await radio.until(3) == [2, 3]


@BOTH_ENGINES
async def test_broadcasters_that_notice_together_agree_on_one_new_epoch(world: World) -> None:
    """One of them begins it, and the others take it over."""
    async with world.broadcaster() as one, world.broadcaster() as two, world.broadcaster() as three:
        await world.commit_many(3)
        before = generation(await epoch_of(world))
        backup = await Backup.of(world)
        await world.commit_many(2)
        radios = []
        async with one.listener() as a, two.listener() as b, three.listener() as c:
            radios = [a, b, c]
            for radio in radios:
                await radio.next()
            await backup.restore(world)
            gaps = [await told(radio) for radio in radios]
            looked = [station.server._tail.look() for station in (one, two, three) for _ in range(2)]
            await asyncio.gather(*looked)

    assert {gap["epoch"] for gap in gaps} == {await epoch_of(world)}
    assert generation(await epoch_of(world)) == before + 1


@BOTH_ENGINES
async def test_new_epochs_are_told_to_those_who_listen(world: World) -> None:
    """Whoever restored a backup says so, and every broadcaster takes it over."""
    await world.commit_many(2)
    async with world.broadcaster() as station, station.listener() as radio:
        hello = await radio.next()
        await begin_new_epochs(world.database)
        gap = await radio.next()
        health = station.server.health()

    assert (gap["since"], gap["oldest"], gap["reason"]) == (2, 3, "epoch")
    assert gap["epoch"] == await epoch_of(world) != hello["epoch"]
    assert (health["epochGeneration"], health["logsReplaced"], health["status"]) == (2, 2, "ok")


@BOTH_ENGINES
async def test_a_log_that_goes_on_is_left_alone(world: World) -> None:
    """However often it is looked at: with events, with an organization that is new, and with a restart."""
    before = await epoch_of(world)
    for _ in range(2):
        async with world.broadcaster() as station, station.listener() as radio:
            await radio.next()
            for _ in range(3):
                await world.commit_many(2)
                await station.server._tail.look()
            head = await world.commit(make_event())
            assert (await radio.until(head))[-1] == head

    assert await epoch_of(world) == before


@BOTH_ENGINES
async def test_a_hole_in_a_page_is_told_where_it_is(world: World) -> None:
    """Also to a listener whose filter would not have admitted what is missing; the beginning is another reason."""
    await world.commit_many(10)
    lost = (1, 2, 5, 6, 8)
    await world.database.write(lambda: models.Event.delete().where(models.Event.sequence.in_(lost)).execute())
    wanted = "&events=note_created"
    async with (
        world.broadcaster() as station,
        station.listener(query="?since=0") as radio,
        station.listener(query=f"?since=3{wanted}") as other,
    ):
        epoch = (await radio.next())["epoch"]
        frames = [await radio.next() for _ in range(8)]
        await other.next()
        gaps = [await other.next() for _ in range(2)]

    assert [(f["since"], f["oldest"], f["reason"]) if f["type"] == "gap" else f["seq"] for f in frames] == [
        (0, 3, "pruned"), 3, 4, (4, 7, "hole"), 7, (7, 9, "hole"), 9, 10,
    ]  # fmt: skip
    assert [(gap["since"], gap["oldest"], gap["reason"]) for gap in gaps] == [(4, 7, "hole"), (7, 9, "hole")]
    assert {frame["epoch"] for frame in (*frames, *gaps) if frame["type"] == "gap"} == {epoch}


@BOTH_ENGINES
async def test_a_hole_at_the_end_of_what_was_missed_is_told(world: World) -> None:
    """When the newest events are not there."""
    await world.commit_many(5)
    await world.database.write(lambda: models.Event.delete().where(models.Event.sequence >= 4).execute())
    async with world.broadcaster() as station, station.listener(query="?since=1") as radio:
        await radio.next()
        frames = [await radio.next() for _ in range(3)]

    assert [frame.get("seq") for frame in frames] == [2, 3, None]
    assert (frames[2]["since"], frames[2]["oldest"], frames[2]["reason"]) == (3, 6, "hole")


async def test_a_backup_put_back_while_everything_was_stopped_is_noticed_at_the_start(
    world: World, tmp_path: Path
) -> None:
    """Nothing in the database tells: what the broadcaster remembers beside it does."""
    remembered = tmp_path / "broadcast.json"
    await world.commit_many(3)
    async with remembering(world, remembered) as station, station.listener() as radio:
        epoch = (await radio.next())["epoch"]
        backup = await Backup.of(world)
    async with remembering(world, remembered) as station, station.listener() as radio:
        assert (await radio.next())["epoch"] == epoch
        await world.commit_many(2)
        await radio.until(5)
        await station.server._continuity._write_checkpoint()
    await backup.restore(world, lambda: outbox.append(world.ours, [make_event() for _ in range(5)]))
    async with remembering(world, remembered) as station, station.listener(query=f"?since=5&epoch={epoch}") as radio:
        hello, gap = await radio.next(), await radio.next()

    assert hello["epoch"] == gap["epoch"] == await epoch_of(world) != epoch
    assert (gap["since"], gap["oldest"], gap["reason"]) == (5, 9, "epoch")


def remembering(world: World, path: Path) -> Any:
    recollection = Recollection(path)

    class Running:
        async def __aenter__(self) -> Station:
            self._running = world.broadcaster(recollection=recollection)
            return await self._running.__aenter__()

        async def __aexit__(self, *given: Any) -> None:
            await self._running.__aexit__(*given)
            recollection.close()

    return Running()


async def test_a_second_broadcaster_remembers_nothing_in_the_same_file(tmp_path: Path) -> None:
    """Two that wrote the same checkpoint would each take the other's mark for a database that went back."""
    first, second = Recollection(tmp_path / "one.json"), Recollection(tmp_path / "one.json")

    assert (first.is_kept, second.is_kept) == (True, False)
    first.close()


@BOTH_ENGINES
async def test_a_table_that_is_missing_is_try_later(world: World) -> None:
    """While a dump is being restored the tables come and go: nobody's token is refused for that."""
    async with world.broadcaster(limits=unhurried()) as station:
        await world.database.write(lambda: units.engine().execute_sql("ALTER TABLE organization RENAME TO elsewhere"))
        async with station.listener(None) as radio:
            frame = await radio.ask(type="auth", token="ours", since=1)
            assert (frame["code"], await radio.closed()) == ("try_later", 1013)
        await world.database.write(lambda: units.engine().execute_sql("ALTER TABLE elsewhere RENAME TO organization"))
        async with station.listener() as radio:
            assert (await radio.next())["type"] == "hello"


@BOTH_ENGINES
async def test_a_listener_is_told_when_many_batches_follow_the_replacement_before_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch was read of the log that is gone, and then a dozen of the one that is there."""
    monkeypatch.setattr(tail, "_LOOK_SECONDS", PATIENCE_SECONDS)
    await world.commit_many(3)
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await world.commit(make_event())
        await radio.until(4)
        backup = await Backup.of(world)
        await world.commit(make_event())
        await radio.until(5)
        await backup.restore(world, lambda: outbox.append(world.ours, [make_event() for _ in range(4)]))
        # Each is read before the next is committed; the gap may come between any two of them.
        said: list[int | str] = [*await radio.until(8)]
        for last in range(9, 21):
            await world.commit(make_event())
            while said[-1] not in ("epoch", last):
                said.append(_seq_or_reason(await radio.next()))
        await station.server._tail.look()

        assert "epoch" in said or (await told(radio))["reason"] == "epoch"


def _seq_or_reason(frame: Frame) -> int | str:
    return cast("int | str", frame["seq"] if frame["type"] == "event" else frame["reason"])
