"""Recordings as callers hand them over: a link, a data URI or plain base64; and what counts as audio.

A recording is told apart by its prefix alone. Base64 must be strict (RFC 4648 §4: the standard alphabet, padded, no
white space) and hold MP3, as the published contract says; behind a link the usual audio containers are accepted too.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

import pybase64

from domain.errors import RecordingRejected

# As many bytes from the start of a recording as `audio_type` may need.
HEAD_BYTES = 12

_LINK = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DATA_URI = re.compile(r"data:(?P<type>[^,;]*)(?P<parameters>[^,]*),", re.IGNORECASE)

# A media type with its parameters is short; this bounds the search for the comma in a very long text.
_DATA_URI_HEAD = 256

_MP4_BRANDS = frozenset(b"M4A  M4B  mp41 mp42 isom iso2 iso4 iso5 iso6 dash 3gp4 3gp5 3gp6".split())


class RecordingForm(StrEnum):
    """The three ways a recording can be handed over."""

    LINK = "link"
    DATA_URI = "data_uri"
    BASE64 = "base64"


def classify(value: str) -> RecordingForm:
    """Tell by its prefix how a recording is handed over; whether it is any good shows later.

    Raises:
        RecordingRejected: when `value` is a URL of another scheme than http, https or data.
    """
    if _LINK.match(value):
        return RecordingForm.LINK
    if value[:5].lower() == "data:":
        return RecordingForm.DATA_URI
    if _SCHEME.match(value):
        raise RecordingRejected("Recording URL must start with http:// or https://")
    return RecordingForm.BASE64


def decode(value: str, max_bytes: int) -> bytes:
    """Return the MP3 that `value`, a data URI or plain base64, holds; at most `max_bytes` long.

    Raises:
        RecordingRejected: when `value` is not base64, too long, empty, or holds something else than MP3.
    """
    encoded = value if classify(value) is RecordingForm.BASE64 else _payload(value)
    if not encoded:
        raise RecordingRejected("Recording is empty")
    if len(encoded) // 4 * 3 - 2 > max_bytes:
        raise RecordingRejected(f"Recording is larger than {max_bytes} bytes")
    audio = _strict_base64(encoded)
    if len(audio) > max_bytes:
        raise RecordingRejected(f"Recording is larger than {max_bytes} bytes")
    if not is_mp3(audio):
        raise RecordingRejected("Recording is not MP3 audio")
    return audio


def decode_pieces(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the MP3 that a data URI or plain base64 holds whose text comes in pieces; by the same rules as `decode`.

    Raises:
        RecordingRejected: as `decode`, some of it only at the end.
    """
    decoder, head = Mp3Decoder(max_bytes), b""
    is_begun = False
    for piece in pieces:
        text = piece
        if not is_begun:
            head += piece
            if len(head) < _DATA_URI_HEAD:
                continue
            is_begun, text = True, _encoded(head)
        if audio := decoder.feed(text):
            yield audio
    if not is_begun:
        yield decoder.feed(_encoded(head))
    decoder.finish()


def _encoded(text: bytes) -> bytes:
    """Return what of the beginning of a recording is base64."""
    head = text[:_DATA_URI_HEAD].decode("latin-1")
    form = classify(head)
    if form is RecordingForm.LINK:
        raise RecordingRejected("Recording URL is too long")
    return text if form is RecordingForm.BASE64 else text[len(head) - len(_payload(head)) :]


class Mp3Decoder:
    """Decodes base64 MP3 that comes in pieces, by the same rules as `decode`; every method raises RecordingRejected."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._rest = b""
        self._head = b""
        self._is_over = False

    def feed(self, piece: bytes) -> bytes:
        """Take in the next piece of text; return the audio that is certain by now, which may be none."""
        text = self._rest + piece
        whole = len(text) // 4 * 4
        self._rest = text[whole:]
        return self._counted(self._decoded(text[:whole]))

    def finish(self) -> None:
        """Insist that the text ended where it may."""
        if self._rest:
            raise _not_base64()
        if not self._size:
            raise RecordingRejected("Recording is empty")
        if len(self._head) < HEAD_BYTES:
            self._insist_on_mp3()

    def _decoded(self, text: bytes) -> bytes:
        if text and self._is_over:
            raise _not_base64()
        self._is_over = self._is_over or text.endswith(b"=")
        return _strict_base64(text)

    def _counted(self, audio: bytes) -> bytes:
        self._size += len(audio)
        if self._size > self._max_bytes:
            raise RecordingRejected(f"Recording is larger than {self._max_bytes} bytes")
        if len(self._head) < HEAD_BYTES:
            self._head += audio[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._insist_on_mp3()
        return audio

    def _insist_on_mp3(self) -> None:
        if not is_mp3(self._head):
            raise RecordingRejected("Recording is not MP3 audio")


def _payload(uri: str) -> str:
    head = _DATA_URI.match(uri, 0, _DATA_URI_HEAD)
    if head is None:
        raise RecordingRejected("Recording data URI must look like data:audio/mpeg;base64,...")
    if not head["type"].strip().lower().startswith("audio/"):
        raise RecordingRejected("Recording data URI must have an audio media type")
    if not head["parameters"].strip().lower().endswith(";base64"):
        raise RecordingRejected("Recording data URI must be base64-encoded")
    return uri[head.end() :]


def _strict_base64(encoded: str | bytes) -> bytes:
    try:
        return pybase64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise _not_base64() from error


def _not_base64() -> RecordingRejected:
    return RecordingRejected("Recording is neither an http(s) URL nor valid base64")


def audio_type(head: bytes) -> str | None:
    """Return the media type of the audio that begins with `head`, at least `HEAD_BYTES` long, or None.

    Known are MP3, WAV, Ogg, FLAC and MP4 (M4A).
    """
    if is_mp3(head):
        return "audio/mpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav"
    if head[:4] == b"OggS":
        return "audio/ogg"
    if head[:4] == b"fLaC":
        return "audio/flac"
    if head[4:8] == b"ftyp" and head[8:12].rstrip() in _MP4_BRANDS:
        return "audio/mp4"
    return None


def is_mp3(head: bytes) -> bool:
    """Tell whether `head` begins with an ID3v2 tag or with an MPEG audio frame."""
    return _is_id3_tag(head[:10]) or _is_mpeg_frame(head[:4])


def _is_id3_tag(head: bytes) -> bool:
    # ID3v2.4 §3.1: "ID3", two version bytes below FF, flags, four size bytes below 80.
    return len(head) == 10 and head[:3] == b"ID3" and max(head[3:5]) < 0xFF and max(head[6:10]) < 0x80


def _is_mpeg_frame(head: bytes) -> bool:
    # ISO 11172-3 §2.4.1.3: eleven bits of sync, then fields that each have forbidden values. A bit rate of 0 ("free")
    # is legal but hardly ever used; refusing it makes it less likely that other data passes for audio.
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate, emphasis = head[2] >> 4, head[2] >> 2 & 3, head[3] & 3
    return version != 1 and layer != 0 and bit_rate not in {0, 15} and sample_rate != 3 and emphasis != 2
