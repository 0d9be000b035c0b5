"""One socket, and the attempts to open one while events are read over HTTP."""

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .options import Options
from .refusals import Ended

_BROKEN = 1006
_CLOSE_SECONDS = 2.0
_PROBE_SECONDS = 60.0  # while events are read over HTTP, the socket is tried again about that often


class Line:
    """A connection to the broadcaster. Once greeted, a line that says nothing for a while is asked."""

    def __init__(self, options: Options) -> None:
        self.is_greeted = False
        self._options = options
        self._connection: ClientConnection | None = None
        self._patience = options.connect_seconds
        self._is_asked = False

    async def open(self) -> None:
        """Open the socket, unless it is open.

        Raises:
            Ended: if that fails or takes too long.
        """
        if self._connection:
            return
        options = self._options
        try:
            async with asyncio.timeout(options.connect_seconds):
                self._connection = await connect(
                    options.url,
                    compression=None,
                    max_size=None,
                    open_timeout=None,
                    ping_interval=None,
                    close_timeout=_CLOSE_SECONDS,
                )
        except InvalidStatus as refused:
            after = _seconds(refused.response.headers.get("Retry-After"))
            raise Ended(_BROKEN, f"the upgrade was answered {refused.response.status_code}", after) from refused
        except TimeoutError as error:
            raise Ended(_BROKEN, f"no answer to the upgrade within {options.connect_seconds:g} s") from error
        except (InvalidHandshake, OSError, EOFError) as error:
            raise Ended(_BROKEN, str(error) or "no connection") from error

    def watch(self, heartbeat_seconds: float) -> None:
        """Note that the server greeted; from now on ask after so much silence."""
        self.is_greeted = True
        self._patience = heartbeat_seconds

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            Ended: if the connection is closed.
        """
        with _told():
            await self._open_connection.send(json.dumps(message))

    async def take(self) -> dict[str, Any]:
        """Return the next frame.

        Raises:
            Ended: when the connection is closed, or says nothing for too long.
        """
        while True:
            patience = self._options.pong_seconds if self._is_asked else self._patience
            try:
                with _told():
                    async with asyncio.timeout(patience):
                        data = await self._open_connection.recv()
            except TimeoutError:
                await self._ask()
                continue
            self._is_asked = False
            return _read(data)

    async def close(self) -> None:
        """Close the socket."""
        if self._connection:
            await self._connection.close()

    @property
    def _open_connection(self) -> ClientConnection:
        if self._connection is None:
            raise Ended(_BROKEN, "not connected")
        return self._connection

    async def _ask(self) -> None:
        if not self.is_greeted or self._is_asked:
            self._open_connection.transport.abort()  # nobody is there to say goodbye to
            raise Ended(_BROKEN, "no answer" if self.is_greeted else f"no greeting within {self._patience:g} s")
        self._is_asked = True
        await self.send({"type": "ping"})


class Probe:
    """Tries the socket now and then; `line` is there, and `opened` set, once it is open."""

    def __init__(self, options: Options) -> None:
        self.line: Line | None = None
        self.opened = asyncio.Event()
        self._options = options

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.line:
            await self.line.close()

    async def _run(self) -> None:
        while self.line is None:
            await asyncio.sleep(random.uniform(_PROBE_SECONDS / 2, _PROBE_SECONDS))  # noqa: S311
            line = Line(self._options)
            with contextlib.suppress(Ended):
                await line.open()
                self.line = line
        self.opened.set()


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except ConnectionClosed as closed:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (_BROKEN, "")
        raise Ended(code, reason or "the connection broke") from closed


def _read(data: str | bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        frame = json.loads(data)
        if isinstance(frame, dict) and isinstance(frame.get("type"), str):
            return frame
    raise Ended(None, "a frame cannot be read")


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isascii() and header.isdecimal() else 0.0
