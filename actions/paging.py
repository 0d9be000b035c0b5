"""Lists that are read page by page, newest first, each page from where the last one ended.

A cursor is the position of the last entry that was shown (`domain.positions`). `persistence.pages` seeks it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from domain.positions import Position, to_position

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries of a list, newest first, and the cursor of the next page, None on the last."""

    entries: list[T]
    next: str | None


async def page_after(
    read: Callable[[Callable[[], Page[T]]], Awaitable[Page[T]]],
    cursor: str | None,
    limit: int,
    find: Callable[[Position | None, int], list[tuple[Position, T]]],
) -> Page[T]:
    """Return at most `limit` entries after the cursor; `find` runs in the unit that `read` runs.

    Raises:
        InvalidRequest: when the cursor is none of ours.
    """
    after = to_position(cursor) if cursor else None

    def unit() -> Page[T]:
        # One more than is shown tells whether there is a next page.
        found = find(after, limit + 1)
        shown = found[:limit]
        return Page([entry for _, entry in shown], str(shown[-1][0]) if len(found) > limit else None)

    return await read(unit)
