import asyncio

import pytest

from handlers.reading_turns import ReadingTurns
from tests.support.waiting import patience


@pytest.fixture
def on_engine() -> None:
    """No database is asked here."""


async def test_waiting_readers_are_called_in_order_each_in_an_iteration_of_its_own() -> None:
    """Whatever else is to be done in an iteration comes in between."""
    turns, loop, iteration = ReadingTurns(), asyncio.get_running_loop(), 0
    called = list[tuple[str, int]]()
    for name in ("a", "b", "c"):
        turns.add(lambda name=name: called.append((name, iteration)), loop)  # type: ignore[misc]
    async with patience():
        while len(called) < 3:
            await asyncio.sleep(0)
            iteration += 1

    assert [name for name, _ in called] == ["a", "b", "c"]
    assert len({iteration for _, iteration in called}) == 3


async def test_a_reader_that_fails_holds_up_nobody() -> None:
    """The next one is called all the same, at once and later."""
    turns, loop, called = ReadingTurns(), asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda *_: None)

    def fail() -> None:
        raise RuntimeError

    for _ in range(2):
        turns.add(fail, loop)
        turns.add(called.set, loop)
        async with patience():
            await called.wait()
        called.clear()
