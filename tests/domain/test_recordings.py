"""Recordings are told apart by their prefix, decoded strictly and believed only when they look like audio."""

import base64
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import RecordingRejected
from domain.recordings import HEAD_BYTES, Mp3Decoder, RecordingForm, audio_type, classify, decode, decode_pieces, is_mp3

ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x00"
FRAME = b"\xff\xfb\x90\x64" + bytes(413)
LIMIT = 1_000_000


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("https://vendor.example/recordings/abc123.mp3", RecordingForm.LINK),
        ("http://vendor.example/a", RecordingForm.LINK),
        ("HTTPS://vendor.example/a", RecordingForm.LINK),
        ("data:audio/mpeg;base64,SUQz", RecordingForm.DATA_URI),
        ("DATA:audio/mpeg;base64,SUQz", RecordingForm.DATA_URI),
        ("SUQz", RecordingForm.BASE64),
        ("httpSUQz", RecordingForm.BASE64),
        ("", RecordingForm.BASE64),
        (" https://vendor.example/a", RecordingForm.BASE64),
    ],
)
def test_the_prefix_alone_tells_the_form(value: str, form: RecordingForm) -> None:
    """Scheme letters count in any case, and nothing is trimmed."""
    assert classify(value) is form


@pytest.mark.parametrize(
    "value", ["file:///etc/passwd", "ftp://vendor.example/a", "javascript:alert(1)", "http:/a", "s3://b/k"]
)
def test_other_schemes_are_named_as_the_problem(value: str) -> None:
    """A URL that is neither http nor https is not mistaken for base64."""
    with pytest.raises(RecordingRejected, match=r"^Recording URL must start with http:// or https://$"):
        classify(value)


@pytest.mark.parametrize("content", [ID3 + FRAME, FRAME, FRAME * 9])
@pytest.mark.parametrize(
    "prefix", ["", "data:audio/mpeg;base64,", "data:audio/mp3;codecs=mp3;base64,", "DATA:Audio/MPEG;BASE64,"]
)
def test_mp3_comes_back_byte_for_byte(prefix: str, content: bytes) -> None:
    """Plain base64 and data URIs decode to the bytes that were encoded."""
    assert decode(prefix + encoded(content), LIMIT) == content


@given(st.binary(max_size=200))
def test_whatever_follows_the_first_frame_is_kept(tail: bytes) -> None:
    """Every length and byte survives, so padding of each kind is read."""
    assert decode(encoded(ID3 + tail), LIMIT) == ID3 + tail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "Recording is empty"),
        ("data:audio/mpeg;base64,", "Recording is empty"),
        ("====", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQzBAAAAAAAAA=", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQzBAAAAAAAAA", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQzBAAA\nAAAAAA==", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQzBAAAAAAAAA==\n", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQzBAAAAAAAAA==SUQz", "Recording is neither an http(s) URL nor valid base64"),
        ("__vQZA==", "Recording is neither an http(s) URL nor valid base64"),
        ("ｓＵＱｚ", "Recording is neither an http(s) URL nor valid base64"),
        ("\ud800AAA", "Recording is neither an http(s) URL nor valid base64"),
        ("SUQz\0AAA", "Recording is neither an http(s) URL nor valid base64"),
        (encoded(b"<html>not audio</html>"), "Recording is not MP3 audio"),
        (encoded(b"RIFF\0\0\0\0WAVEfmt "), "Recording is not MP3 audio"),
        (encoded(b"ID3"), "Recording is not MP3 audio"),
        ("data:video/mp4;base64," + encoded(FRAME), "Recording data URI must have an audio media type"),
        ("data:;base64," + encoded(FRAME), "Recording data URI must have an audio media type"),
        ("data:audio/mpeg," + encoded(FRAME), "Recording data URI must be base64-encoded"),
        ("data:audio/mpeg;base64", "Recording data URI must look like data:audio/mpeg;base64,..."),
        ("data:" + "a" * 300 + ",", "Recording data URI must look like data:audio/mpeg;base64,..."),
        ("data:audio/mpeg;base64,SUQz BAAA", "Recording is neither an http(s) URL nor valid base64"),
    ],
)
def test_each_kind_of_bad_recording_gets_its_own_sentence(value: str, reason: str) -> None:
    """Blank, loose, truncated, mislabelled and silent recordings are all refused."""
    with pytest.raises(RecordingRejected) as refusal:
        decode(value, LIMIT)
    assert str(refusal.value) == reason


@given(st.text(max_size=80) | st.binary(max_size=60).map(encoded))
def test_any_text_is_decoded_or_refused(value: str) -> None:
    """No text makes the decoder fail in another way than by refusing."""
    try:
        content = decode(value, LIMIT)
    except RecordingRejected:
        return
    assert is_mp3(content)


def test_the_limit_is_exact() -> None:
    """A recording of the limit passes; one byte more does not."""
    assert len(decode(encoded(FRAME), len(FRAME))) == len(FRAME)
    for limit in range(len(FRAME) - 4, len(FRAME)):
        with pytest.raises(RecordingRejected, match=f"^Recording is larger than {limit} bytes$"):
            decode(encoded(FRAME), limit)


def test_an_oversized_recording_is_refused_before_it_is_decoded() -> None:
    """A text far over the limit costs no memory of its size."""
    value = "A" * 8_000_000
    tracemalloc.start()
    with pytest.raises(RecordingRejected, match="larger"):
        decode(value, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_decoding_copies_a_recording_once() -> None:
    """The only large allocation is the decoded recording itself."""
    value = encoded(FRAME + bytes(6_000_000))
    tracemalloc.start()
    content = decode(value, LIMIT * 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(content) * 1.1


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (ID3 + b"\0\0", "audio/mpeg"),
        (FRAME[:HEAD_BYTES], "audio/mpeg"),
        (b"\xff\xf3\x40\xc4" + bytes(8), "audio/mpeg"),
        (b"\xff\xfd\x90\x04" + bytes(8), "audio/mpeg"),
        (b"RIFF\x24\x08\0\0WAVE", "audio/wav"),
        (b"OggS\0\x02" + bytes(6), "audio/ogg"),
        (b"fLaC\0\0\0\x22" + bytes(4), "audio/flac"),
        (b"\0\0\0\x20ftypM4A ", "audio/mp4"),
        (b"\0\0\0\x20ftypisom", "audio/mp4"),
        (b"\0\0\0\x20ftypheic", None),
        (b"RIFF\x24\x08\0\0AVI ", None),
        (b"<!DOCTYPE html>", None),
        (b"\x1f\x8b\x08" + bytes(9), None),
        (b"\xff\xd8\xff\xe0" + bytes(8), None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_audio_is_known_by_its_first_bytes(head: bytes, expected: str | None) -> None:
    """MP3, WAV, Ogg, FLAC and M4A are told apart; pictures, pages and archives are none of them."""
    assert audio_type(head) == expected


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\xff\xdb\x90\x64", id="sync too short"),
        pytest.param(b"\xfe\xfb\x90\x64", id="no sync"),
        pytest.param(b"\xff\xeb\x90\x64", id="reserved version"),
        pytest.param(b"\xff\xf9\x90\x64", id="reserved layer, as in AAC"),
        pytest.param(b"\xff\xfb\xf0\x64", id="forbidden bit rate"),
        pytest.param(b"\xff\xfb\x00\x64", id="free bit rate"),
        pytest.param(b"\xff\xfb\x9c\x64", id="reserved sample rate"),
        pytest.param(b"\xff\xfb\x90\x66", id="reserved emphasis"),
        pytest.param(b"\xff\xfb\x90", id="too short"),
    ],
)
def test_a_frame_header_with_a_forbidden_field_is_not_mp3(frame: bytes) -> None:
    """Every field of the header that can be wrong is looked at."""
    assert not is_mp3(frame)
    assert is_mp3(b"\xff\xfb\x90\x64")


@pytest.mark.parametrize(
    "head", [b"ID3\xff\0\0\0\0\0\0", b"ID3\x03\xff\0\0\0\0\0", b"ID3\x03\0\0\x80\0\0\0", b"ID3\x03\0\0\0\0\0"]
)
def test_a_damaged_tag_is_not_mp3(head: bytes) -> None:
    """An ID3 tag has versions below FF, size bytes below 80, and ten bytes."""
    assert not is_mp3(head)


@given(st.binary(max_size=2000), st.sampled_from(["", "data:audio/mpeg;base64,"]), st.integers(1, 700))
def test_pieces_are_decoded_like_the_whole(tail: bytes, prefix: str, size: int) -> None:
    """Where a text was cut makes no difference."""
    audio = b"ID3\x04\x00\x00\x00\x00\x00\x00" + tail
    text = (prefix + base64.b64encode(audio).decode()).encode()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    assert b"".join(decode_pieces(pieces, 10_000)) == audio


@pytest.mark.parametrize(
    "text",
    ["https://example.com/a.mp3", "ftp://example.com/a.mp3", "data:text/plain;base64,SUQz", "SUQz!", "SUQzBA=A", ""],
)
def test_pieces_of_something_else_are_refused(text: str) -> None:
    """By the same rules, and a link does not come in pieces."""
    with pytest.raises(RecordingRejected):
        list(decode_pieces([text.encode()], 10_000))


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("audio", [b"x", b"text", b"eleven byte", b"twelve bytes", b"more than that many bytes"])
def test_what_is_no_audio_is_refused_however_short_it_is(audio: bytes, size: int) -> None:
    """It is looked at, whether as many bytes come as a tag has or fewer."""
    text = base64.b64encode(audio)
    with pytest.raises(RecordingRejected, match="not MP3"):
        list(decode_pieces([text[start : start + size] for start in range(0, len(text), size)], 10_000))


def test_nothing_may_follow_the_padding() -> None:
    """Two texts glued together are not one recording."""
    text = base64.b64encode(b"ID3\x04" + b"\0" * 300) + base64.b64encode(b"ID3\x04")
    with pytest.raises(RecordingRejected, match="base64"):
        list(decode_pieces([text[start : start + 4] for start in range(0, len(text), 4)], 10_000))


@pytest.mark.parametrize("text", ["SUQz!", "SUQzBAAAAAAAAA", "SUQzBA==SUQz"])
def test_a_recording_that_is_not_base64_gets_one_sentence_whole_or_in_pieces(text: str) -> None:
    """The sentence does not depend on how long the recording is."""
    decoder = Mp3Decoder(LIMIT)

    def in_pieces() -> None:
        for start in range(0, len(text), 4):
            decoder.feed(text[start : start + 4].encode())
        decoder.finish()

    for refuse in (lambda: decode(text, LIMIT), in_pieces):
        with pytest.raises(RecordingRejected, match="neither an http") as refusal:
            refuse()
        assert str(refusal.value) == "Recording is neither an http(s) URL nor valid base64"
