"""Where a secret is found in a text, however it is written there: quoted, encoded, in part, in capital letters."""

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

PIECE = 12
_AROUND = 80


@dataclass(frozen=True)
class Finding:
    """A secret in a text: how it is written there, and where."""

    spelling: str
    excerpt: str


def spellings(secret: str) -> dict[str, str]:
    """Return the ways to write `secret`, each under its name; those that change nothing are left out."""
    as_json, as_ascii = json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1]
    ways = {
        "as it is": secret,
        "repr": repr(secret)[1:-1],
        "ascii": ascii(secret)[1:-1],
        "bytes": repr(secret.encode())[2:-1],
        "JSON": as_json,
        "JSON in ASCII": as_ascii,
        "JSON in JSON": json.dumps(as_json)[1:-1],
        "JSON in JSON in ASCII": json.dumps(as_ascii)[1:-1],
        "quoted": quote(secret, safe=""),
        "quoted for a form": quote_plus(secret),
        "HTML": html.escape(secret),
        "SQL": secret.replace("'", "''"),
    }
    ways |= {f"base64 at {shift}": _base64(secret, shift) for shift in range(3)}
    first: dict[str, str] = {}
    for name, written in ways.items():
        first.setdefault(written, name)
    return {name: written for written, name in first.items() if written}


def findings(secret: str, text: str) -> Iterator[Finding]:
    """Find `secret`, and any piece of it long enough to be of use, in capital or small letters."""
    folded = text.lower()
    for name, written in spellings(secret).items():
        for piece in _pieces(written):
            at = folded.find(piece.lower())
            if at >= 0:
                yield Finding(name, text[max(0, at - _AROUND) : at + len(piece) + _AROUND])
                break


def _pieces(written: str) -> list[str]:
    if len(written) <= PIECE:
        return [written]
    return [written, *(written[i : i + PIECE] for i in range(0, len(written) - PIECE + 1, 4))]


def _base64(text: str, shift: int) -> str:
    return base64.b64encode(b"\0" * shift + text.encode()).decode()[4:-4] if len(text) > PIECE else ""
