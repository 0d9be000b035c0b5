"""Whether a client takes what it was sent: one that takes nothing of it for its time is given up.

An answer has its seconds to be taken, and one more for every so many bytes that were; at most as long again at a time,
because the buffers of a client that does not read take megabytes.
"""

import asyncio
import contextlib
import fcntl
import struct
import termios
from collections.abc import Callable

BYTES_PER_SECOND = 4096


class Taking:
    """Watches one connection from `watch` until `stop`; `give_up` is called once the time is over."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float, give_up: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._give_up = give_up
        self._untaken = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_over = False

    def watch(self) -> None:
        """Give the client its time from now on, unless it has some already."""
        if not self.is_over and self._timer is None:
            self._untaken = _untaken(self._transport)
            self._timer = self._loop.call_later(self._seconds, self._on_time)

    def stop(self) -> None:
        """Leave it in peace until the next `watch`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Leave it in peace for good: the connection is lost."""
        self.is_over = True
        self.stop()

    def _on_time(self) -> None:
        self._timer = None
        before, self._untaken = self._untaken, _untaken(self._transport)
        earned = (before - self._untaken) / BYTES_PER_SECOND
        if earned >= 1:
            self._timer = self._loop.call_later(min(earned, self._seconds), self._on_time)
        else:
            self._give_up()


def _untaken(transport: asyncio.Transport) -> int:
    """Return how many bytes of what was written the client has not acknowledged, as far as the kernel tells."""
    queued = bytes(struct.calcsize("i"))
    with contextlib.suppress(OSError):
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + int(struct.unpack("i", queued)[0])
