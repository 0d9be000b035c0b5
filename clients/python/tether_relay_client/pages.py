"""Pages of events over HTTP."""

import asyncio
import random
import time
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

import httpx

from .events import Event
from .options import Options
from .refusals import INVALID_MESSAGE, TOKEN_REFUSED, Ended

_POLL_SECONDS = 2.0  # the shortest time between two empty pages
_WAIT_SECONDS = 25  # how long the API is asked to wait for an event
_PAGE_EVENTS = 500
_UNAUTHORIZED = 401
_BAD_REQUEST = 400


class Page(TypedDict):
    """An answer of `GET /api/events`."""

    events: list[Event]
    next: int
    oldest: int
    head: int
    epoch: NotRequired[str]
    gap: NotRequired[dict[str, Any] | None]


class Pages:
    """Reads one page after the other."""

    def __init__(self, options: Options, token: str) -> None:
        self._url = str(options.fallback_url)
        self._patience = options.pong_seconds
        self._http = httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def read(self, asked: dict[str, Any], interrupted: asyncio.Event, *, may_wait: bool) -> Page | None:
        """Return the page after the position in `asked`, or None if `interrupted` was set before it came.

        An empty page is returned after two seconds at the earliest, so that an API that does not wait is asked no more
        often.

        Raises:
            Ended: if there is none.
        """
        page = asyncio.create_task(self._read(asked, may_wait=may_wait))
        stop = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({page, stop}, return_when=asyncio.FIRST_COMPLETED)
            return None if stop.done() else page.result()
        finally:
            page.cancel()
            stop.cancel()
            await asyncio.gather(page, stop, return_exceptions=True)

    async def _read(self, asked: dict[str, Any], *, may_wait: bool) -> Page:
        began = time.monotonic()
        is_beginning = "since" not in asked  # then only the head is of interest
        wait = _WAIT_SECONDS if may_wait and not is_beginning else 0
        query = {"since": 0, **asked, "limit": 1 if is_beginning else _PAGE_EVENTS, "wait": wait}
        if "events" in asked:
            query["events"] = ",".join(asked["events"])
        try:
            answer = await self._http.get(self._url, params=query, timeout=wait + self._patience)
        except httpx.TimeoutException as error:
            raise Ended(None, "no answer") from error
        except httpx.HTTPError as error:
            raise Ended(None, str(error) or type(error).__name__) from error
        page = _page(answer)
        if may_wait and not page["events"]:
            rest = _POLL_SECONDS - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, rest) + random.uniform(0, 0.1))  # noqa: S311
        return page


def _page(answer: httpx.Response) -> Page:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict) and isinstance(body.get("events"), list):
        return body  # type: ignore[return-value]
    error = body.get("error") if isinstance(body, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    reason = words if isinstance(words, str) else f"the API answered {answer.status_code}"
    if answer.status_code == _UNAUTHORIZED:
        raise Ended(TOKEN_REFUSED, reason)
    if answer.status_code == _BAD_REQUEST:
        raise Ended(INVALID_MESSAGE, reason)
    after = answer.headers.get("Retry-After", "")
    raise Ended(answer.status_code, reason, float(after) if after.isascii() and after.isdecimal() else 0)
