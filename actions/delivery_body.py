"""The body of a delivery that may hold a whole recording, kept out of memory.

It is written down as it comes, on disk once it is large, and believed only afterwards. The one text that can be huge,
the base64 audio, is then left where it is: the rest of the document is read without it, and the audio decoded piece by
piece.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import IO, Self

from domain.errors import InvalidRequest, PayloadTooLarge, RecordingRejected
from domain.large_texts import Cutter, unescaped
from domain.recordings import Mp3Decoder

_PIECE = 256 * 1024
_WORTH_A_THREAD = 16 * 1024
_IN_MEMORY = 1024 * 1024
_MAX_DOCUMENT = 16 * 1024 * 1024

_AUDIO = "full_audio"


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

    async def document(self) -> tuple[bytearray, Span | None]:
        """Return the text of the JSON document, its audio replaced by an empty text, and where that audio stands.

        Raises:
            PayloadTooLarge: when there is too much besides the audio.
        """
        if self._size <= _PIECE:
            return self._document()
        return await asyncio.to_thread(self._document)

    def _document(self) -> tuple[bytearray, Span | None]:
        return _without_audio(self._pieces(0, self._size))

    async def audio(self, span: Span, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the decoded MP3.

        Raises:
            RecordingRejected: when it is not base64, not MP3, empty or larger than `max_bytes`.
        """
        decoder, pieces = Mp3Decoder(max_bytes), unescaped(self._pieces(span.start, span.end))
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                if audio := decoder.feed(piece):
                    yield audio
        except InvalidRequest as error:
            raise RecordingRejected("Recording is not valid base64") from error
        decoder.finish()

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            self._file.seek(start)
            piece = self._file.read(min(_PIECE, end - start))
            yield piece
            start += len(piece)


def _without_audio(pieces: Iterator[bytes]) -> tuple[bytearray, Span | None]:
    cutter, rest, span = Cutter(_AUDIO), bytearray(), None
    start = end = 0
    for piece in pieces:
        for is_audio, part in cutter.feed(piece):
            start, end = end, end + len(part)
            if is_audio:
                span = Span(span.start if span and span.end == start else start, end)
            else:
                rest += part
        if len(rest) > _MAX_DOCUMENT:
            raise PayloadTooLarge(_MAX_DOCUMENT)
    return rest + cutter.finish()[1], span
