"""Texts people type in: names, labels, addresses."""

from domain.errors import InvalidRequest

_LONGEST = 200


def one_line(text: str, what: str, longest: int = _LONGEST) -> str:
    """Return `text` without space around it.

    Raises:
        InvalidRequest: if it is blank, too long, or not one line of printable characters.
    """
    line = text.strip()
    if not line or len(line) > longest or not line.isprintable():
        raise InvalidRequest(f"The {what} must be one line of at most {longest} characters")
    return line
