"""Texts people type in: names, labels, addresses."""

from domain.errors import InvalidRequest
from domain.lengths import LENGTHS


def one_line(text: str, what: str, longest: int = LENGTHS["name"]) -> str:
    """Return `text` without space around it.

    Raises:
        InvalidRequest: if it is blank, too long, or not one line of printable characters.
    """
    line = text.strip()
    if not line or len(line) > longest or not line.isprintable():
        raise InvalidRequest(f"The {what} must be one line of at most {longest} characters")
    return line


# How much of a text of any length is shown in lists and events; all of it is shown where one thing is read.
MAX_SHOWN = 20_000


def shown(text: str | None) -> str | None:
    """Return as much of the text as lists and events show, with an ellipsis if that is not all."""
    return text if text is None or len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
