import asyncio

import pytest

from domain.errors import Overloaded
from persistence.gathering import Gathering, Job
from tests.support.waiting import patience

KEY = "one organization"


class Works:
    """Takes groups, and gives each job the result of its unit once it may."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, int]] = []
        self.may_end = asyncio.Event()
        self._begun = asyncio.Event()
        self.gathering = Gathering(self._work)

    async def _work(self, key: str, jobs: list[Job]) -> None:
        self.groups.append((key, len(jobs)))
        self._begun.set()
        await self.may_end.wait()
        for job in jobs:
            job.result = job.unit()

    async def until(self, count: int) -> None:
        """Wait until so many groups are, or were, at work."""
        while len(self.groups) < count:
            self._begun.clear()
            await self._begun.wait()

    def ask(self, *numbers: int, key: str = KEY) -> "list[asyncio.Future[int]]":
        """Ask for units that return the numbers."""
        return [asyncio.ensure_future(self.gathering.run(key, lambda number=number: number)) for number in numbers]  # type: ignore[misc]


async def test_all_who_wait_are_served_however_many_they_are() -> None:
    """Sixty-four at a time, in the order they came."""
    works = Works()
    asked = works.ask(*range(150))
    await asyncio.sleep(0)
    works.may_end.set()
    async with patience():
        answers = await asyncio.gather(*asked)

    assert answers == list(range(150))
    assert [size for _, size in works.groups] == [64, 64, 22]


async def test_who_comes_while_the_last_group_is_at_work_is_served_next() -> None:
    """Nobody is forgotten at the moment at which nobody else waits."""
    works = Works()
    first = works.ask(1)
    await works.until(1)
    second = works.ask(2)
    await asyncio.sleep(0)
    works.may_end.set()
    async with patience():
        answers = await asyncio.gather(*first, *second)
        again = await asyncio.gather(*works.ask(3))

    assert (answers, again) == ([1, 2], [3])
    assert [size for _, size in works.groups] == [1, 1, 1]


async def test_two_organizations_do_not_wait_for_each_other() -> None:
    """The group of one is at work while the other's is."""
    works = Works()
    asked = [*works.ask(1), *works.ask(2, key="another")]
    await works.until(2)
    works.may_end.set()

    assert await asyncio.gather(*asked) == [1, 2]
    assert works.groups == [(KEY, 1), ("another", 1)]


async def test_everybody_in_a_group_that_cannot_be_served_is_told_so() -> None:
    """And the next group is tried."""
    failures = [Overloaded("busy")]

    async def work(_: str, jobs: list[Job]) -> None:
        await asyncio.sleep(0)
        if failures:
            raise failures.pop()
        for job in jobs:
            job.result = job.unit()

    gathering = Gathering(work)
    asked = [asyncio.ensure_future(gathering.run(KEY, lambda: "done")) for _ in range(3)]
    told = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in told] == [Overloaded] * 3
    assert await gathering.run(KEY, lambda: "done") == "done"


@pytest.mark.parametrize("place", [0, 1])
async def test_whoever_goes_away_takes_no_answer_from_the_others(place: int) -> None:
    """The unit of a caller that was cancelled is run, and the others hear what became of theirs."""
    works = Works()
    asked = works.ask(1, 2)
    await asyncio.sleep(0)
    asked[place].cancel()
    works.may_end.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert answers[1 - place] == 2 - place
