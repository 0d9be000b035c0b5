import asyncio
import threading

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from domain.errors import Overloaded
from keyring.passwords import Passwords
from tests.support.waiting import until

PASSWORD = SecretStr("correct horse battery staple")


class Slow(PasswordHasher):
    """Compares once it is told to; counts how many are being compared."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go_on = threading.Event()
        self.at_work = 0

    def verify(self, *given: object, **named: object) -> bool:  # type: ignore[override]
        self.at_work += 1
        assert self.go_on.wait(20)
        return True


async def test_two_are_compared_at_once_and_a_few_wait() -> None:
    """A flood of sign-ins takes neither the machine nor its memory: the rest is asked to come back."""
    hasher = Slow()
    passwords = Passwords(hasher)
    waiting = [asyncio.create_task(passwords.match(PASSWORD, "stored")) for _ in range(64)]
    await until(lambda: hasher.at_work >= 2)
    # Whoever is let in has been handed to a thread by now; a third one would begin any moment.
    await asyncio.sleep(0.1)
    most = hasher.at_work
    with pytest.raises(Overloaded):
        await asyncio.wait_for(passwords.match(PASSWORD, "stored"), 5)
    hasher.go_on.set()

    assert most == 2
    assert all(await asyncio.gather(*waiting))


async def test_a_comparison_that_is_over_makes_room_for_another() -> None:
    """However it ends, and however many there were."""
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    stored = await passwords.hash(PASSWORD)
    results = [await passwords.match(PASSWORD, kept) for kept in (stored, "no hash", None) for _ in range(30)]

    assert results == [True] * 30 + [False] * 60
