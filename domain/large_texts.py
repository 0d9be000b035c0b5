"""Texts too large to be held twice: taken out of JSON that arrives in pieces, and read piece by piece.

A large text is one member's value, base64 as a rule. The document is parsed and validated without it; the text itself
stays in the pieces it came in.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from domain import documents
from domain.errors import InvalidRequest, PayloadTooLarge

# What is shorter costs less than the care taken of it.
LARGE = 64 * 1024

_LONGEST_NAME = 64
_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
# Whole escapes and what stands between them: a surrogate is whole with its other half. Nothing is tried twice.
_WHOLE = re.compile(
    rb"[^\\]*+(?:\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89abAB])[0-9a-fA-F]{4})[^\\]*+)*+"
)
_LONGEST_ESCAPE = len(rb"\ud83d\ude00")
_BEGUN_CHARACTER = re.compile(rb"(?:[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})\Z")
_LONGEST_CHARACTER = 4

_INVALID_ESCAPE = "A text contains an invalid escape"

# A piece of a document, and whether it belongs to the text.
Part = tuple[bool, bytes]


class LargeText:
    """The inside of a JSON text, in the pieces it arrived in."""

    __slots__ = ("_digest", "_pieces", "_size")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = list(pieces)
        self._size = sum(map(len, self._pieces))
        self._digest: str | None = None

    def __len__(self) -> int:
        return self._size

    def sha256(self) -> str:
        """Return the digest of the text in UTF-8; the first time before it is drained.

        Raises:
            InvalidRequest: when an escape in it is none.
        """
        if self._digest is None:
            digest = hashlib.sha256()
            for piece in unescaped(self._pieces):
                digest.update(piece)
            self._digest = digest.hexdigest()
        return self._digest

    def drain(self) -> Iterator[bytes]:
        """Yield the text in UTF-8, and let go of it piece by piece.

        Raises:
            InvalidRequest: when an escape in it is none.
        """
        pieces, self._pieces = self._pieces[::-1], []
        return unescaped(pieces.pop() for _ in range(len(pieces)))


class Cutter:
    """Tells which bytes of a JSON document belong to the texts of members called `name`, at whatever depth."""

    def __init__(self, name: str) -> None:
        # In JSON these bytes can only be a member's name: inside a text its quotes would be escaped.
        # They come first in the expression, which is thirty times as fast over bytes that have none of them.
        quoted = re.escape(f'"{name}"'.encode())
        self._name = re.compile(quoted + rb"(?<!\\" + quoted + rb')[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"')
        self._is_inside = False
        self._kept = b""

    def feed(self, piece: bytes) -> Iterator[Part]:
        """Yield what is certain after the next piece of the document."""
        buffer, start = self._kept + piece, 0
        while True:
            end, turns = self._text_end(buffer, start) if self._is_inside else self._rest_end(buffer, start)
            yield self._is_inside, buffer[start:end]
            start = end
            if not turns:
                break
            self._is_inside = not self._is_inside
        self._kept = buffer[start:]

    def finish(self) -> Part:
        """Return what was not certain until now."""
        return self._is_inside, self._kept

    def _rest_end(self, buffer: bytes, start: int) -> tuple[int, bool]:
        found = self._name.search(buffer, start)
        return (found.end(), True) if found else (max(len(buffer) - _LONGEST_NAME, start), False)

    def _text_end(self, buffer: bytes, start: int) -> tuple[int, bool]:
        end = buffer.find(b'"', start)
        end = len(buffer) if end < 0 else end
        if buffer.find(b"\\", start, end) >= 0:
            text = _TEXT.match(buffer, start)
            end = text.end() if text else start
        return end, buffer[end : end + 1] == b'"'


def read(
    parts: Sequence[Part], name: str, most_bytes: int | None = None, most_values: int | None = None
) -> tuple[Any, LargeText | None]:
    """Return the document that `parts` make up, and the text of its member `name` when that is large.

    In the document a mark stands for such a text. It is read like any other value where it is not the document's own
    member, or not the only one of that name.

    Raises:
        InvalidRequest: when it is not JSON, or has more than `most_values` values.
        PayloadTooLarge: when it is longer than `most_bytes` without that text.
    """
    document = _read_apart(parts, name, most_values)
    if document is not None:
        return document, LargeText(piece for is_text, piece in parts if is_text)
    if most_bytes is not None and sum(len(piece) for _, piece in parts) > most_bytes + LARGE:
        raise PayloadTooLarge(most_bytes, f"Request body without its {name}")
    return documents.load(b"".join(piece for _, piece in parts), most_values), None


def is_heavy(parts: Sequence[Part], name: str) -> bool:
    """Tell whether reading the document may take more than a few milliseconds.

    A text that is not read apart is as heavy as any other part of the document: it costs by what it holds.
    """
    if documents.is_heavy(*(piece for is_text, piece in parts if not is_text)):
        return True
    if not any(is_text for is_text, _ in parts):
        return False
    try:
        return _read_apart(parts, name, None) is None and documents.is_heavy(*(piece for _, piece in parts))
    except InvalidRequest:
        return False  # which is found out as quickly once more


def _read_apart(parts: Sequence[Part], name: str, most_values: int | None) -> dict[str, Any] | None:
    """Return the document with a mark for its text, or None if the text has to be read with everything else."""
    if sum(len(piece) for is_text, piece in parts if is_text) <= LARGE:
        return None
    mark = secrets.token_hex(16)
    rest, texts = _marked(parts, mark.encode())
    document = documents.load(rest, most_values)
    is_own = texts == 1 and isinstance(document, dict) and document.get(name) == mark
    return document if is_own else None


def _marked(parts: Iterable[Part], mark: bytes) -> tuple[bytes, int]:
    rest: list[bytes] = []
    texts, was_text = 0, False
    for is_text, piece in parts:
        if is_text and not was_text:
            texts += 1
        if not is_text or not was_text:
            rest.append(mark if is_text else piece)
        was_text = is_text
    return b"".join(rest), texts


def unescaped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Undo JSON's escapes; most writers use none in base64, some escape the slash.

    Raises:
        InvalidRequest: if an escape is invalid.
    """
    kept = b""
    for piece in pieces:
        text = kept + piece
        end = _end_of_whole(text)
        kept = text[end:]
        yield _plain(text[:end])
    yield _plain(kept)


def _end_of_whole(text: bytes) -> int:
    """Return where the escape or the character begins that the end of `text` cuts in two, or the end.

    Raises:
        InvalidRequest: if it cannot be one.
    """
    if b"\\" in text:
        whole = _WHOLE.match(text)
        end = whole.end() if whole else 0
        if len(text) - end >= _LONGEST_ESCAPE:
            raise InvalidRequest(_INVALID_ESCAPE)
        if end < len(text):
            return end
    begun = _BEGUN_CHARACTER.search(text, max(len(text) - _LONGEST_CHARACTER + 1, 0))
    return begun.start() if begun else len(text)


def _plain(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    try:
        plain: str = documents.load(b'"' + text + b'"')
        return plain.encode()
    except InvalidRequest as error:
        raise InvalidRequest(_INVALID_ESCAPE) from error
