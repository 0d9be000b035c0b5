"""Real MP3 bytes: silent MPEG-1 Layer III frames, as long as a test wants."""

import base64

# 128 kbit/s at 44.1 kHz: 417 bytes a frame, about 26 ms each. A zeroed frame body decodes to silence.
_FRAME = b"\xff\xfb\x90\x64" + bytes(413)


def mp3(frames: int = 40) -> bytes:
    """Return `frames` frames of silence."""
    return _FRAME * frames


def mp3_base64(frames: int = 40) -> str:
    """Return the same, as a call system would send it."""
    return base64.b64encode(mp3(frames)).decode()
