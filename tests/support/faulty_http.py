"""A loopback HTTP/1.1 server that plays a vendor: it records what it gets, and misbehaves when told to.

It runs in the loop that enters it (`async with`), or in a thread of its own (`with in_thread(fake)`) for tests that
start other processes. `behave`, `release` and `until_received` work from any thread.
"""

import abc
import asyncio
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

import h11

from tests.support.waiting import PATIENCE_SECONDS

_RESET = struct.pack("ii", 1, 0)


class Fault(Enum):
    """Ways not to answer. Those `BEFORE_READING` befall a connection as it is made, the others a request."""

    HANG_BEFORE_READING = auto()
    RESET_BEFORE_READING = auto()
    HANG_AFTER_READING = auto()
    RESET_AFTER_READING = auto()
    CLOSE_AFTER_READING = auto()
    HANG_AFTER_PROCESSING = auto()
    RESET_AFTER_PROCESSING = auto()
    HANG_INSIDE_BODY = auto()
    RESET_INSIDE_BODY = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `document` as JSON, or `body` as it stands; cut in half by a reset if `is_half`."""

    status: int = 200
    document: Any = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_half: bool = False

    def content(self) -> bytes:
        """Return the body's bytes."""
        if self.body is not None:
            return self.body
        return b"" if self.document is None else json.dumps(self.document).encode()


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived; header names are lower case, `target` is undecoded."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """The target without its query, undecoded."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each query parameter."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def form(self) -> dict[str, str]:
        """The body read as a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def document(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Callback:
    """A request a vendor would make to us."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class FakeVendor(abc.ABC):
    """The server; a subclass says in `answer` what its vendor would."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._steps: deque[tuple[str, Fault | Reply]] = deque()
        self._always: list[tuple[str, Fault | Reply]] = []
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self._port = 0

    @abc.abstractmethod
    def answer(self, request: Received) -> Reply:
        """Do what the vendor does with a request."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def behave(self, *steps: Fault | Reply, on: str = "", always: bool = False) -> None:
        """Meet the next requests whose target contains `on` with `steps`, one each, and then answer as usual again.

        With `always`, meet every such request with the one step. Without any step, answer as usual from now on.
        """
        with self._changed:
            if always:
                self._always = [(on, step) for step in steps]
            else:
                self._steps.extend((on, step) for step in steps)
            if not steps:
                self._steps.clear()
                self._always = []

    def release(self) -> None:
        """Let everything that hangs go on, and answer."""
        self._loop.call_soon_threadsafe(self._gate.set)

    async def until_received(self, count: int, *, seconds: float = PATIENCE_SECONDS) -> list[Received]:
        """Wait for `count` requests in all and return them."""
        await asyncio.to_thread(self._wait, count, seconds)
        return self.requests[:count]

    async def __aenter__(self) -> Self:
        self._loop, self._gate = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*list(self._tasks), return_exceptions=True)
        await self._server.wait_closed()
        if self._failure:
            raise self._failure

    def _wait(self, count: int, seconds: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, seconds):
                raise AssertionError(f"{len(self.requests)} of {count} requests came within {seconds} s")

    def _step(self, target: str, *, at_connection: bool) -> Fault | Reply | None:
        early = (Fault.HANG_BEFORE_READING, Fault.RESET_BEFORE_READING)
        with self._changed:
            for index, (on, step) in enumerate(self._steps):
                if (step in early) == at_connection and on in target:
                    del self._steps[index]
                    return step
            return next((s for on, s in self._always if (s in early) == at_connection and on in target), None)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, h11.RemoteProtocolError):
                await self._converse(reader, writer, self.connections)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            # Kept for `__aexit__`, where the test sees it.
            self._failure = error
        finally:
            writer.transport.abort()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        step = self._step("", at_connection=True)
        if step is Fault.HANG_BEFORE_READING:
            await self._gate.wait()
        elif step is Fault.RESET_BEFORE_READING:
            return _reset(writer)
        wire = h11.Connection(h11.SERVER)
        while request := await _read(wire, reader, number):
            if not await self._respond(wire, writer, request):
                return None
            wire.start_next_cycle()
        return None

    async def _respond(self, wire: h11.Connection, writer: asyncio.StreamWriter, request: Received) -> bool:
        step = self._step(request.target, at_connection=False)
        name = step.name if isinstance(step, Fault) else ""
        reply = step if isinstance(step, Reply) else None
        if reply is None and not name.endswith("AFTER_READING"):
            reply = self.answer(request)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if name.startswith("RESET_AFTER"):
            _reset(writer)
        elif name.startswith("HANG_AFTER"):
            await self._gate.wait()
        if name.startswith(("RESET_AFTER", "CLOSE_AFTER")):
            return False
        reply = reply or self.answer(request)
        await _write(wire, writer, reply, is_half=reply.is_half or name.endswith("INSIDE_BODY"))
        if name == Fault.HANG_INSIDE_BODY.name:
            await self._gate.wait()
        elif name == Fault.RESET_INSIDE_BODY.name or reply.is_half:
            _reset(writer)
        return wire.our_state is h11.DONE and wire.their_state is h11.DONE


FakeT = TypeVar("FakeT", bound=FakeVendor)


@contextmanager
def in_thread(fake: FakeT) -> Iterator[FakeT]:
    """Run `fake` in a thread with a loop of its own."""
    started, stop = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def run() -> None:
        async with fake:
            started.set()
            await asyncio.to_thread(stop.wait)

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=body, name=type(fake).__name__)
    thread.start()
    started.wait()
    try:
        if not errors:
            yield fake
    finally:
        stop.set()
        thread.join()
        if errors:
            raise errors[0]


def unused_url() -> str:
    """Return a loopback address nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


async def _read(wire: h11.Connection, reader: asyncio.StreamReader, number: int) -> Received | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            return Received(head.method.decode(), head.target.decode(), headers, body, number)
        else:
            return None


async def _write(wire: h11.Connection, writer: asyncio.StreamWriter, reply: Reply, *, is_half: bool) -> None:
    content = reply.content()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}
    head = h11.Response(status_code=reply.status, headers=list(headers.items()))
    writer.write(wire.send(head) or b"")
    if is_half:
        writer.write(content[: len(content) // 2])
    else:
        writer.write((wire.send(h11.Data(data=content)) or b"") + (wire.send(h11.EndOfMessage()) or b""))
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # With a linger time of zero, closing sends a reset instead of an orderly end.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
