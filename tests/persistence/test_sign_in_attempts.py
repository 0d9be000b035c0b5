import asyncio
import contextlib

from domain.times import from_wire, later
from persistence import sign_in_attempts
from persistence.database import Database, open_database
from persistence.models import SignInAttempts

KEY = "k" * 64


async def test_processes_that_share_a_database_share_the_count(database_url: str) -> None:
    """Of thirty attempts through three doors at once exactly the allowed number gets through."""
    with contextlib.ExitStack() as stack:
        doors = [open_database(database_url) for _ in range(3)]
        for door in doors:
            stack.callback(door.close)
        refused = await asyncio.gather(
            *(doors[n % 3].write(lambda: sign_in_attempts.take(KEY, 7, 60)) for n in range(30))
        )
        count = await doors[0].read(lambda: SignInAttempts.get_by_id(KEY).count)

    assert sum(free_at is None for free_at in refused) == 7
    assert count == 7
    assert all(from_wire(free_at) <= from_wire(later(60)) for free_at in refused if free_at)


async def test_a_place_that_was_given_back_can_be_taken_again(database_url: str) -> None:
    """And a count never falls below nothing."""
    database = open_database(database_url)
    try:
        taken = [await database.write(lambda: sign_in_attempts.take(KEY, 1, 60)) for _ in range(2)]
        for _ in range(3):
            await database.write(lambda: sign_in_attempts.give_back(KEY))
        again = [await database.write(lambda: sign_in_attempts.take(KEY, 1, 60)) for _ in range(2)]
    finally:
        database.close()

    assert [free_at is None for free_at in taken] == [True, False]
    assert [free_at is None for free_at in again] == [True, False]


async def test_two_keys_are_counted_apart(database: Database) -> None:
    """To forget one, or to give one of its attempts back, leaves the other's count as it is."""
    other = "o" * 64

    def unit() -> list[bool]:
        for key in (KEY, other):
            sign_in_attempts.take(key, 1, 60)
        sign_in_attempts.give_back(KEY)
        sign_in_attempts.forget(KEY)
        return [sign_in_attempts.take(key, 1, 60) is None for key in (KEY, other)]

    def given_back() -> list[bool]:
        sign_in_attempts.give_back(KEY)
        return [sign_in_attempts.take(key, 1, 60) is None for key in (other, KEY)]

    assert await database.write(unit) == [True, False]
    assert await database.write(given_back) == [False, True]
