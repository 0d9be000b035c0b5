"""Places: how many may do something at once, for one owner and in all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable

from domain.errors import Overloaded


class Places:
    """A number of places, of which one owner may have only some; whoever waits too long for one goes without."""

    def __init__(self, most: int, most_of_one: int, seconds: float) -> None:
        self._all = asyncio.Semaphore(most)
        self._most_of_one = most_of_one
        self._seconds = seconds
        self._of_one: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def of(self, owner: Hashable) -> AsyncIterator[None]:
        """Have a place for as long as the context lasts.

        Raises:
            Overloaded: when none was free in time.
        """
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._seconds):
                    # Acquire the owner's own place first: a request that waits for it must not occupy a shared one.
                    await held.enter_async_context(self._own(owner))
                    await held.enter_async_context(self._all)
            except TimeoutError as error:
                raise Overloaded("Too many of these are under way; try again in a moment") from error
            yield

    @contextlib.asynccontextmanager
    async def _own(self, owner: Hashable) -> AsyncIterator[None]:
        semaphore, users = self._of_one.get(owner, (asyncio.Semaphore(self._most_of_one), 0))
        self._of_one[owner] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._of_one[owner]
            if users == 1:
                del self._of_one[owner]
            else:
                self._of_one[owner] = (semaphore, users - 1)
