"""A socket that brings hints and answers to one coroutine, in a loop that is busy with other things."""

import asyncio
import select
from collections.abc import Callable


class Arrivals:
    """Calls `take` whenever there is something to be read, and wakes whoever waits.

    When `take` raises, nothing more is read, and whoever waits is told. Made and used in a running event loop.
    """

    def __init__(self, socket: int, take: Callable[[], None]) -> None:
        self._socket = socket
        self._take = take
        self._waiting: asyncio.Future[bool] | None = None
        self._error: Exception | None = None
        self._readable = select.poll()
        self._readable.register(socket, select.POLLIN)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(socket, self._arrived)

    async def wait(self, timeout: float) -> bool:
        """Return as soon as something was taken, False after `timeout` seconds; raise what `take` raised."""
        has_come = True
        if self._error is None:
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._wake, False)
            try:
                has_come = await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        if self._error is not None:
            raise self._error
        return has_come

    def are_pending(self) -> bool:
        """Tell whether something has come that whoever waits has yet to look at; takes a microsecond."""
        if self._error is not None:
            return False
        return (self._waiting is not None and self._waiting.done()) or bool(self._readable.poll(0))

    async def room(self, timeout: float) -> None:
        """Wait until the socket takes more; raise TimeoutError after `timeout` seconds."""
        writable = asyncio.Event()
        self._loop.add_writer(self._socket, writable.set)
        try:
            async with asyncio.timeout(timeout):
                await writable.wait()
        finally:
            self._loop.remove_writer(self._socket)

    def close(self) -> None:
        """Read no more; the socket is the caller's."""
        self._loop.remove_reader(self._socket)

    def _arrived(self) -> None:
        try:
            self._take()
        except Exception as error:  # it is told to whoever waits, now or later
            self._error = error
            self.close()
        self._wake(True)

    def _wake(self, has_come: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(has_come)
