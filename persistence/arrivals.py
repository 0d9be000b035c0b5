"""Steps that are taken as things come in on a socket, in a loop that is busy with other things.

Tasks and futures would do the same, but each hands on to the next only when the loop comes round. With a crowd to be
written to that is after hundreds of system calls, so whoever writes may `look` in between.
"""

import asyncio
import select
from collections.abc import Callable, Generator
from typing import Any, TypeVar

R = TypeVar("R")

# Yields for how many seconds at most it waits, and is sent whether something was taken in; it may be sent that for
# nothing, so it looks at what it waits for.
Steps = Generator[float, bool, R]


class Arrivals:
    """Calls `take` when there is something to be read, and then has the next step taken.

    When `take` raises, nothing more is read, and the steps end with that. Made and used in a running event loop.
    """

    def __init__(self, socket: int, take: Callable[[], None]) -> None:
        self._socket = socket
        self._take = take
        self._steps: Steps[Any] | None = None
        self._then: Callable[[], bool] = bool
        self._error: Exception | None = None
        self._readable = select.poll()
        self._readable.register(socket, select.POLLIN)
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[Any] = self._loop.create_future()
        self._timer: asyncio.Handle | None = None
        self._turn: asyncio.Handle | None = None
        self._loop.add_reader(socket, self._arrived)

    async def run(self, steps: Steps[R], then: Callable[[], bool] = bool) -> R:
        """Take the steps, and return what they return; raise what they or `take` raise.

        When a step was taken because something came, or time was up, `then` is called; and once more when the others
        had their turn, if it says that there is more to do. What it raises ends the steps as well.
        """
        if self._error is not None:
            raise self._error
        self._steps, self._then, self._end = steps, then, self._loop.create_future()
        try:
            self._advance(None)
            self._act()
            result: R = await self._end
            return result
        finally:
            self._stop()
            steps.close()

    def look(self) -> None:
        """Take in what has come, and take the next step; a microsecond when nothing has."""
        if self._error is None and self._readable.poll(0):
            self._take_in()

    def close(self) -> None:
        """Read no more; the socket is the caller's."""
        self._loop.remove_reader(self._socket)

    def _arrived(self) -> None:
        self._take_in()
        self._act()

    def _timed_out(self) -> None:
        self._advance(False)
        self._act()

    def _take_in(self) -> None:
        try:
            self._take()
        except Exception as error:  # it is told to whoever waits, now or later
            self.close()
            self._error = error
            self._fail(error)
        else:
            self._advance(True)

    def _advance(self, has_come: bool | None) -> None:
        if self._steps is None or self._end.done():  # it may have been cancelled just now
            return
        try:
            patience = self._steps.send(has_come)  # type: ignore[arg-type]
        except StopIteration as end:
            self._stop()
            self._end.set_result(end.value)
        except Exception as error:  # it is told to whoever waits
            self._fail(error)
        else:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_later(patience, self._timed_out)

    def _act(self) -> None:
        if self._turn:
            self._turn.cancel()
            self._turn = None
        try:
            if self._steps is not None and self._then():
                self._turn = self._loop.call_soon(self._act)
        except Exception as error:  # it is told to whoever waits
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._steps is not None and not self._end.done():
            self._stop()
            self._end.set_exception(error)

    def _stop(self) -> None:
        self._steps = None
        for handle in (self._timer, self._turn):
            if handle:
                handle.cancel()
