"""Request bodies: received within their limit, in turns, and how much of them may be held in memory at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from domain.errors import Overloaded, PayloadTooLarge, UnsupportedMediaType
from domain.large_texts import LARGE, Cutter, Part
from openapi.media import is_json

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Headers = Mapping[bytes, bytes]

# Below this a body is not worth counting: thousands of them fit into what one large recording takes.
_SMALL = 1024 * 1024


class Disconnected(Exception):
    """Raised when the client goes away before its request is whole; there is nobody left to answer."""


class BodyRoom:
    """Room for large bodies, shared by every request of this process; one body always fits, whatever its size."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._turnstile = asyncio.Lock()

    def share(self) -> "BodyShare":
        """Return a request's share, which is empty at first."""
        return BodyShare(self)

    def take(self, size: int) -> None:
        """Take so many bytes.

        Raises:
            Overloaded: when others hold too much already.
        """
        if self._held and self._held + size > self._limit:
            raise Overloaded("Too many large requests are being received")
        self._held += size

    def give_back(self, size: int) -> None:
        """Free so many bytes."""
        self._held -= size

    async def turn(self) -> None:
        """Let everybody else be served before the next piece of a large body is read, whoever's it is."""
        async with self._turnstile:
            await asyncio.sleep(0)


class BodyShare:
    """What one request holds of the room, until it is answered."""

    __slots__ = ("_held", "_room")

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._held = 0

    def grow_to(self, size: int) -> None:
        """Hold `size` bytes in all; small bodies hold nothing.

        Raises:
            Overloaded: when there is no room.
        """
        if size > max(self._held, _SMALL):
            # What we hold ourselves must not stand in our own way.
            self._room.give_back(self._held)
            self._held = 0
            self._room.take(size)
            self._held = size

    async def turn(self) -> None:
        """Wait until it is this request's turn to read on; a small body has every turn."""
        if self._held:
            await self._room.turn()

    def free(self) -> None:
        """Give everything back."""
        if self._held:
            self._room.give_back(self._held)
            self._held = 0


class IncomingBody:
    """The body of one request, received once.

    Raises, while it is received:
        PayloadTooLarge: as soon as it is known to exceed `limit`, before reading it when its length is announced.
        Overloaded: when too much of others is held already.
        Disconnected: when it ends too early.
    """

    __slots__ = ("_headers", "_is_whole", "_limit", "_receive", "_share", "_size")

    def __init__(self, headers: Headers, receive: Receive, limit: int, share: BodyShare) -> None:
        self._headers = headers
        self._receive = receive
        self._limit = limit
        self._share = share
        self._size = 0
        self._is_whole = False

    async def whole(self) -> bytes:
        """Return all of it."""
        self._insist_on_length()
        first = await self._next()
        if self._is_whole:
            return first
        chunks = [first]
        while not self._is_whole:
            chunks.append(await self._next())
        return b"".join(chunks)

    async def parts(self, name: str, most_besides: int) -> list[Part]:
        """Return all of it, the large texts of members called `name` apart, and at most so many bytes besides."""
        self._insist_on_length()
        piece = await self._next()
        if self._is_whole and len(piece) <= LARGE:
            return [(False, piece)] if piece else []
        cutter, parts, texts = Cutter(name), list[Part](), 0
        while True:
            fed = list(cutter.feed(piece))
            parts += fed
            texts += sum(len(part) for is_text, part in fed if is_text)
            if self._size - texts > most_besides:
                raise PayloadTooLarge(most_besides, f"Request body without its {name}")
            if self._is_whole:
                return [*parts, cutter.finish()] if self._size else []
            piece = await self._next()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it as it arrives."""
        self._insist_on_length()
        while not self._is_whole:
            if chunk := await self._next():
                yield chunk

    def _insist_on_length(self) -> None:
        announced = self._headers.get(b"content-length", b"")
        length = int(announced[:20]) if announced.isdigit() else 0
        if length > self._limit:
            raise PayloadTooLarge(self._limit)
        self._share.grow_to(length)

    async def _next(self) -> bytes:
        await self._share.turn()
        message = await self._receive()
        if message["type"] != "http.request":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        self._is_whole = not message.get("more_body", False)
        self._size += len(chunk)
        if self._size > self._limit:
            raise PayloadTooLarge(self._limit)
        self._share.grow_to(self._size)
        return chunk


def insist_on_json(headers: Headers) -> None:
    """Insist that a body is sent as JSON, not compressed.

    Raises:
        UnsupportedMediaType: when it is not.
    """
    given = headers.get(b"content-type", b"application/json")
    if given != b"application/json" and given.strip() and not is_json(given.decode("latin-1")):
        raise UnsupportedMediaType("Request body must be sent as application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Request body must be sent without a content encoding")
