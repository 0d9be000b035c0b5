"""Request bodies: received within their limit, in turns, and how much of them may be held in memory at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from domain.addresses import network_of
from domain.errors import Overloaded, PayloadTooLarge, UnsupportedMediaType
from domain.large_texts import LARGE, Cutter, Part
from openapi.media import is_json

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Headers = Mapping[bytes, bytes]

# Below this a body is not worth counting, and is never refused for want of room: no tool call is longer.
_SMALL = 64 * 1024

# No owner holds more of a room than its share. A room is never smaller than that one
# of the largest bodies fits into a share.
_SHARES = 3


class Disconnected(Exception):
    """Raised when the client goes away before its request is whole; there is nobody left to answer."""


class BodyRoom:
    """Room for large bodies, shared by the requests of this process: what came of them counts, not what is announced.

    Nobody waits for room: a body that outgrows it is refused, so bodies that came half can never stand in each other's
    way for ever.
    """

    def __init__(self, limit: int, largest: int, turnstile: asyncio.Lock | None = None) -> None:
        self._limit = max(limit, _SHARES * largest)
        self._of_one = self._limit // _SHARES
        self._held = 0
        self._owners: dict[Hashable, int] = {}
        self._turnstile = turnstile or asyncio.Lock()

    def share(self, owner: Hashable) -> "BodyShare":
        """Return a request's share of what `owner` may hold, which is empty at first."""
        return BodyShare(self, owner)

    def insist_on(self, owner: Hashable, size: int) -> None:
        """Insist that `owner` may hold so many bytes more.

        Raises:
            Overloaded: when the owner, or all together, would hold too much.
        """
        if self._held + size > self._limit or self._owners.get(owner, 0) + size > self._of_one:
            raise Overloaded("Too many large requests are being received")

    def take(self, owner: Hashable, size: int) -> None:
        """Take so many bytes.

        Raises:
            Overloaded: when the owner, or all together, would hold too much.
        """
        self.insist_on(owner, size)
        self._held += size
        self._owners[owner] = self._owners.get(owner, 0) + size

    def give_back(self, owner: Hashable, size: int) -> None:
        """Free so many bytes."""
        self._held -= size
        self._owners[owner] -= size
        if not self._owners[owner]:
            del self._owners[owner]

    async def turn(self) -> None:
        """Let everybody else be served before the next piece of a large body is read, whoever's it is."""
        async with self._turnstile:
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much of bodies is taken, in bytes but for `document_values`; an operation may set less of its own.

    `document_bytes` of a body are parsed as JSON in one go, `held_bytes` of large bodies are held at once, and
    `held_unverified_bytes` of those whose sender is not known yet.
    """

    body_bytes: int
    document_bytes: int
    document_values: int
    held_bytes: int
    held_unverified_bytes: int


class BodyRooms:
    """A room for callers whose token was verified, and a smaller one for everybody else."""

    def __init__(self, limits: BodyLimits) -> None:
        turnstile = asyncio.Lock()
        self._verified = BodyRoom(limits.held_bytes, limits.body_bytes, turnstile)
        self._unverified = BodyRoom(limits.held_unverified_bytes, limits.body_bytes, turnstile)

    def share(self, organization_id: str | None, address: str | None) -> "BodyShare":
        """Return the share of a request, whose owner is the organization or, as long as there is none, the address."""
        if organization_id is not None:
            return self._verified.share(organization_id)
        return self._unverified.share(network_of(address))


class BodyShare:
    """What one request holds of the room, until it is answered."""

    __slots__ = ("_held", "_owner", "_room")

    def __init__(self, room: BodyRoom, owner: Hashable) -> None:
        self._room = room
        self._owner = owner
        self._held = 0

    def insist_on(self, size: int) -> None:
        """Insist that so many bytes fit just now, without taking them.

        Raises:
            Overloaded: when there is no room.
        """
        if size > _SMALL:
            self._room.insist_on(self._owner, size)

    def grow_to(self, size: int) -> None:
        """Hold `size` bytes in all; small bodies hold nothing.

        Raises:
            Overloaded: when there is no room.
        """
        if size > max(self._held, _SMALL):
            self._room.take(self._owner, size - self._held)
            self._held = size

    async def turn(self) -> None:
        """Wait until it is this request's turn to read on; a small body has every turn."""
        if self._held:
            await self._room.turn()

    def free(self) -> None:
        """Give everything back."""
        if self._held:
            self._room.give_back(self._owner, self._held)
            self._held = 0


class IncomingBody:
    """The body of one request, received once.

    Raises, while it is received:
        PayloadTooLarge: as soon as it is known to exceed `limit`, before reading it when its length is announced.
        Overloaded: when too much is held already, of the same owner or altogether.
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
        self._share.insist_on(length)

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
