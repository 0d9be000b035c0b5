"""Listeners in bulk: a WebSocket client reduced to what a test of thousands of frames a millisecond needs."""

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Any

from tests.support import published_events

REQUEST = (
    "GET /v1?since={since} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer any\r\n\r\n"
)


class Transcript:
    """What was said: a sequence's first frame is checked against the document, all others must be the same bytes."""

    def __init__(self) -> None:
        self._events: dict[int, bytes] = {}

    def check(self, payload: bytes) -> int | None:
        """Return the sequence of an event frame, None for a hello."""
        if payload.startswith(b'{"type":"event","seq":'):
            sequence = int(payload[22 : payload.index(b",", 22)])
            known = self._events.get(sequence)
            if known is None:
                published_events.check(payload)
                self._events[sequence] = payload
            else:
                assert payload == known
            return sequence
        frame = published_events.check(payload)
        assert frame["type"] == "hello"
        return None


class Listener:
    """Follows one organization up to `last`, with a hand that pulls the plug, covers its ears, or lets it be."""

    def __init__(self, ports: list[int], last: int, transcript: Transcript, chance: random.Random) -> None:
        self.position = 0
        self.connections = 0
        self._ports = ports
        self._last = last
        self._transcript = transcript
        self._chance = chance

    async def follow(self) -> None:
        """Connect again and again until everything has come; every event must be the next one."""
        while self.position < self._last:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(self._chance.uniform(0.02, 0.1))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        port = self._chance.choice(self._ports)
        transport, line = await loop.create_connection(lambda: Line(self._hear), "127.0.0.1", port)
        self.connections += 1
        transport.write(REQUEST.format(since=self._place()).encode())
        try:
            # Only who got something is mistreated, or a busy machine could keep a listener from ever getting on.
            ready: set[asyncio.Future[Any]] = {line.ended, line.spoken}
            await asyncio.wait(ready, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            while not line.ended.done() and self.position < self._last:
                await self._mistreat(transport, line)
        finally:
            transport.abort()
        if line.fault:
            raise line.fault

    async def _mistreat(self, transport: asyncio.Transport, line: "Line") -> None:
        deed = self._chance.random()
        await asyncio.wait([line.ended], timeout=self._chance.uniform(0.05, 0.5))
        if deed < 0.3:
            transport.abort()
            await line.ended
        elif deed < 0.6 and not transport.is_closing():
            transport.pause_reading()
            await asyncio.wait([line.ended], timeout=self._chance.uniform(0.1, 0.9))
            transport.resume_reading()

    def _place(self) -> str:
        return str(self.position)

    def _hear(self, payload: bytes, line: "Line") -> None:
        sequence = self._transcript.check(payload)
        if sequence is not None:
            line.say_spoken()
            assert sequence == self.position + 1
            self.position = sequence


class Told(Listener):
    """Follows a log that may be replaced: what it `held` follows the last gap, and is dropped with the next one."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        super().__init__(ports, sys.maxsize, Transcript(), chance)
        self.base = 0
        self.epoch: str | None = None
        self.held: list[tuple[int, str]] = []
        self.reasons: list[str] = []

    def stop_at(self, last: int) -> None:
        """Follow no further than that, which must be beyond the head of every log there was before."""
        self._last = last

    def _place(self) -> str:
        return super()._place() + (f"&epoch={self.epoch}" if self.epoch else "")

    def _hear(self, payload: bytes, line: "Line") -> None:
        frame = published_events.check(payload)
        if frame["type"] == "hello":
            self.epoch = self.epoch or frame["epoch"]
            return
        line.say_spoken()
        if frame["type"] == "error":
            assert frame["code"] == "try_later"
            return
        if frame["type"] == "gap":
            self.position = self.base = frame["oldest"] - 1
            self.epoch = frame["epoch"]
            self.held.clear()
            self.reasons.append(frame["reason"])
            return
        assert frame["seq"] == self.position + 1
        self.position = frame["seq"]
        self.held.append((frame["seq"], frame["at"]))


class Line(asyncio.Protocol):
    """Takes frames apart; `ended` holds the close code, if there was one."""

    def __init__(self, hear: Callable[[bytes, "Line"], None]) -> None:
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.spoken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fault: BaseException | None = None
        self._hear = hear
        self._buffer = bytearray()
        self._is_open = False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if self._is_open or self._opened():
                self._take_frames()
        except BaseException as fault:
            self.fault = fault
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def say_spoken(self) -> None:
        if not self.spoken.done():
            self.spoken.set_result(None)

    def _end(self, code: int | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    def _opened(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        del self._buffer[: end + 4]
        self._is_open = True
        return True

    def _take_frames(self) -> None:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= 2:
            size, body = buffer[start + 1], start + 2
            if size == 126:
                # A length that is not here yet reads too small, but then neither is what it measures.
                size, body = int.from_bytes(buffer[body : body + 2], "big"), body + 2
            if len(buffer) < body + size:
                break
            if buffer[start] == 0x81:
                self._hear(bytes(buffer[body : body + size]), self)
            elif buffer[start] == 0x88:
                self._end(int.from_bytes(buffer[body : body + 2], "big"))
                break
            start = body + size
        del buffer[:start]
