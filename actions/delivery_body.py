"""The body of a delivery that may hold a whole recording, kept out of memory.

It is written down as it comes, on disk once it is large, and believed only afterwards. The one text that can be huge,
the base64 audio, is then left where it is: the rest of the document is read without it, and the audio decoded piece by
piece.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

from domain import documents
from domain.errors import InvalidRequest, PayloadTooLarge, RecordingRejected
from domain.recordings import Mp3Decoder

_PIECE = 256 * 1024
_WORTH_A_THREAD = 16 * 1024
_IN_MEMORY = 1024 * 1024
_MAX_DOCUMENT = 16 * 1024 * 1024

# In JSON these bytes can only be a member's name: inside a text its quotes would be escaped.
_NAME = re.compile(rb'(?<!\\)"full_audio"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"')
_LONGEST_NAME = 64
_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_LONGEST_ESCAPE = len(rb"\u002f")


@dataclass(frozen=True, slots=True)
class Span:
    """Where the audio's base64 stands in the body: from `start` up to, not including, `end`."""

    start: int
    end: int


class DeliveryBody:
    """A body being received, and then read; leaves nothing behind."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed at the end of the block
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def receive(self, chunks: AsyncIterable[bytes], hear: Callable[[bytes], None]) -> None:
        """Write down every chunk; `hear` is told each piece of the body, in order."""
        piece = bytearray()
        async for chunk in chunks:
            piece += chunk
            if len(piece) >= _PIECE:
                await asyncio.to_thread(self._take, bytes(piece), hear)
                piece.clear()
        if len(piece) <= _WORTH_A_THREAD:
            self._take(bytes(piece), hear)
        else:
            await asyncio.to_thread(self._take, bytes(piece), hear)

    def _take(self, piece: bytes, hear: Callable[[bytes], None]) -> None:
        self._size += len(piece)
        hear(piece)
        self._file.write(piece)

    async def document(self) -> tuple[Any, Span | None]:
        """Return the JSON document, its audio replaced by an empty text, and where that audio stands.

        Raises:
            InvalidRequest: when it is not JSON.
            PayloadTooLarge: when there is too much besides the audio.
        """
        if self._size <= _PIECE:
            return self._document()
        return await asyncio.to_thread(self._document)

    def _document(self) -> tuple[Any, Span | None]:
        rest, span = _without_audio(self._pieces(0, self._size))
        return documents.load(rest), span

    async def audio(self, span: Span, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the decoded MP3.

        Raises:
            RecordingRejected: when it is not base64, not MP3, empty or larger than `max_bytes`.
        """
        decoder, pieces = Mp3Decoder(max_bytes), _unescaped(self._pieces(span.start, span.end))
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            if audio := decoder.feed(piece):
                yield audio
        decoder.finish()

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            self._file.seek(start)
            piece = self._file.read(min(_PIECE, end - start))
            yield piece
            start += len(piece)


def _without_audio(pieces: Iterator[bytes]) -> tuple[bytearray, Span | None]:
    rest, span = bytearray(), None
    buffer, offset, start = b"", 0, None
    for piece in pieces:
        buffer += piece
        while True:
            if start is None:
                found = _NAME.search(buffer)
                used = found.end() if found else max(len(buffer) - _LONGEST_NAME, 0)
                rest += buffer[:used]
                start = offset + used if found else None
                is_more = found is not None
            else:
                used = _text_end(buffer)
                is_more = buffer[used : used + 1] == b'"'
                if is_more:
                    span, start = Span(start, offset + used), None
            buffer, offset = buffer[used:], offset + used
            if not is_more:
                break
        if len(rest) > _MAX_DOCUMENT:
            raise PayloadTooLarge(_MAX_DOCUMENT)
    return rest + buffer, span


def _text_end(buffer: bytes) -> int:
    """Return how much of `buffer` certainly belongs to the text it begins in."""
    text = _TEXT.match(buffer)
    return text.end() if text else 0


def _unescaped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Undo JSON's escapes; most writers use none in base64, some escape the slash."""
    kept = b""
    for piece in pieces:
        text = kept + piece
        # An escape may be cut in two.
        cut = text.rfind(b"\\", max(len(text) - _LONGEST_ESCAPE + 1, 0))
        kept = b"" if cut < 0 else text[cut:]
        yield _plain(text if cut < 0 else text[:cut])
    yield _plain(kept)


def _plain(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    try:
        plain: str = documents.load(b'"' + text + b'"')
        return plain.encode()
    except InvalidRequest as error:
        raise RecordingRejected("Recording is not valid base64") from error
