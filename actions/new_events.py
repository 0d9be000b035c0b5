"""Requests that wait for the next event of their organization.

However many wait, one task follows the database for all of them, and only as long as one does.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol

import structlog

from actions.background import Background
from domain.epochs import Standing
from domain.errors import facts_of
from persistence import outbox
from persistence.database import Database

_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.5

log = structlog.get_logger()


class Given(Protocol):
    """What following needs of the relay."""

    @property
    def database(self) -> Database: ...  # noqa: D102
    @property
    def background(self) -> Background: ...  # noqa: D102


class News:
    """Tells one request that there may be a new event; `may_come` is False if it must not wait."""

    def __init__(self, *, may_come: bool) -> None:
        self.may_come = may_come
        self._event = asyncio.Event()

    def clear(self) -> None:
        """Begin to listen anew; do this before looking."""
        self._event.clear()

    def tell(self) -> None:
        """Wake the request."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when there may be something, after `seconds` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


class NewEvents:
    """At most `most` requests wait, and at most `most_of_one` of one organization; others are answered at once."""

    def __init__(self, most: int = 1000, most_of_one: int = 250) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._waiting: dict[str, set[News]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._is_closing = False

    @contextlib.contextmanager
    def expected(self, organization_id: str, given: Given) -> Iterator[News]:
        """Yield what tells of the organization's next events, for as long as the context lasts."""
        waiting = self._waiting.get(organization_id, set())
        has_room = sum(map(len, self._waiting.values())) < self._most and len(waiting) < self._most_of_one
        if self._is_closing or not has_room:
            yield News(may_come=False)
            return
        news = News(may_come=True)
        self._waiting.setdefault(organization_id, set()).add(news)
        if self._follower is None or self._follower.done():
            self._follower = given.background.start(self._follow(given.database))
        try:
            yield news
        finally:
            waiting = self._waiting[organization_id]
            waiting.remove(news)
            if not waiting:
                del self._waiting[organization_id]

    def close(self) -> None:
        """Have every request answered with what there is; no other waits from here on."""
        self._is_closing = True
        for news in self._everybody():
            news.may_come = False
            news.tell()

    async def _follow(self, database: Database) -> None:
        while self._waiting:
            try:
                await self._follow_until_trouble(database)
            except Exception as error:  # whatever it is, requests wait for events that may come
                log.warning("new_events.failed", **facts_of(error))
                for news in self._everybody():
                    news.tell()
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow_until_trouble(self, database: Database) -> None:
        known: dict[str, Standing] = {}
        async with database.follow() as follower:
            while self._waiting:
                asked = list(self._waiting)
                found = await database.read(lambda asked=asked: outbox.standings_of(asked))  # type: ignore[misc]
                for organization_id in asked:
                    # One that began to wait since the last look is told once for nothing.
                    if found.get(organization_id) != known.get(organization_id):
                        for news in self._waiting.get(organization_id, ()):
                            news.tell()
                known = found
                await follower.wait(_LOOK_SECONDS)

    def _everybody(self) -> list[News]:
        return [news for waiting in self._waiting.values() for news in waiting]
