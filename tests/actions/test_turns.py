import asyncio
import gc
import weakref

from actions.turns import Turns
from tests.support.waiting import patience


async def test_work_on_one_key_is_done_one_after_the_other_however_many_wait() -> None:
    """Also for those who come while the second of them is at work."""
    turns, at_work, most, order = Turns(), 0, 0, list[int]()

    async def work(number: int) -> None:
        nonlocal at_work, most
        async with turns.of("key"):
            at_work += 1
            most = max(most, at_work)
            for _ in range(3):
                await asyncio.sleep(0)
            order.append(number)
            at_work -= 1

    async with asyncio.TaskGroup() as everybody:
        for number in range(6):
            everybody.create_task(work(number))
            for _ in range(2):
                await asyncio.sleep(0)

    assert (most, order) == (1, [0, 1, 2, 3, 4, 5])


async def test_work_on_other_keys_does_not_wait() -> None:
    """A key is all that is shared."""
    turns = Turns()
    async with turns.of("one"), patience(), turns.of("other"):
        pass


async def test_a_failure_passes_the_turn_on() -> None:
    """Whoever waits is not kept out by what went wrong before."""
    turns = Turns()
    for _ in range(2):
        try:
            async with patience(), turns.of("key"):
                raise LookupError
        except LookupError:
            continue


async def test_nothing_is_left_of_a_key_nobody_works_on() -> None:
    """There is a key for every call that was ever recorded."""

    class Key:
        """A key that can be missed."""

    turns, key = Turns(), Key()
    async with turns.of(key):
        pass
    left = weakref.ref(key)
    del key
    gc.collect()

    assert left() is None
