"""What both stores have in common: the verbs, what is stored, and which keys and ranges are right.

Rules of this folder:

1. Keys are ours (`org/<id>/calls/<id>/recording.mp3`) and written once. Anything that is not plain segments of ASCII
   letters, digits, `.`, `_` and `-` is refused with ValueError before anything else happens.
2. An object is there whole or not at all. What goes wrong while it is written leaves nothing behind; what a killed
   process leaves behind is listed by `keys`, so that a sweep finds it.
3. Objects are streamed in both directions; neither store holds more than one part (8 MiB) of one.
4. What a library or the operating system says never gets out: it becomes StorageUnavailable or FileNotFoundError.
   An exception of the iterator that feeds `store` passes through unchanged.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MAX_LINK_SECONDS = 604_800

_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}(?:/[A-Za-z0-9._-]{1,200})*")
_MAX_KEY_LENGTH = 512


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was stored: its key, its size in bytes, and the SHA-256 of its content in lower-case hex."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One object in a listing; `modified_at` is in wire form."""

    key: str
    modified_at: str


class RecordingStore(Protocol):
    """Keeps recordings. Every verb may raise StorageUnavailable, and ValueError for a key that is not one of ours."""

    async def store(self, key: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredObject:
        """Write `chunks` under `key`, which must be new: when this fails, nothing is there afterwards."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to, not including, `end`; close the generator if you leave it early.

        Raises:
            FileNotFoundError: at the first step, when there is no such object.
        """
        ...

    async def size(self, key: str) -> int:
        """Return the size in bytes: an answer's Content-Length and Content-Range come before its first byte.

        Raises:
            FileNotFoundError: when there is no such object.
        """
        ...

    async def remove(self, key: str) -> None:
        """Remove the object; there need not be one."""
        ...

    async def link(self, key: str, seconds: int) -> str:
        """Return a URL that anybody may GET the object from during the next `seconds` (1 to 604,800).

        It is signed without asking the store, so it does not prove that the object exists.

        Raises:
            ValueError: when `seconds` is out of range.
        """
        ...

    def keys(self, prefix: str = "") -> AsyncGenerator[StoredKey, None]:
        """Yield every object whose key begins with `prefix`, in no particular order.

        What a killed process left half-written in a folder is listed too, under a key that nothing refers to.
        """
        ...

    async def check(self) -> None:
        """Return if the store can be used just now; costs one small request or file."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; the store is not used afterwards."""
        ...


def checked(key: str) -> str:
    """Return the key if it is one of ours.

    Raises:
        ValueError: if it is not.
    """
    if not is_key(key):
        raise ValueError("Not the key of a recording")
    return key


def is_key(key: str) -> bool:
    """Tell whether the key is one of ours."""
    return len(key) <= _MAX_KEY_LENGTH and _KEY.fullmatch(key) is not None and {".", ".."}.isdisjoint(key.split("/"))


def checked_seconds(seconds: int) -> int:
    """Return the duration of a link if it is in range.

    Raises:
        ValueError: if it is not.
    """
    if not 1 <= seconds <= MAX_LINK_SECONDS:
        raise ValueError(f"A link lasts from 1 to {MAX_LINK_SECONDS} seconds")
    return seconds


def span(start: int, end: int | None, size: int) -> tuple[int, int]:
    """Return the part of `start` to `end` that exists, as a slice would."""
    if start < 0 or (end is not None and end < 0):
        raise ValueError("A range does not begin before the first byte")
    start = min(start, size)
    return start, max(start, size if end is None else min(end, size))


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even if cancelled meanwhile, and only then be cancelled."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    task.exception()
    raise cancelled
