"""Ranges of bytes, as a player asks for them (RFC 9110, 14.1.2 and 14.2)."""

import re

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """Raised when a range lies outside of what it is asked of."""


def requested(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the part of `size` bytes that `header` asks for as (start, end), `end` not included.

    None means the whole: there is no header, or one that may be ignored because it is malformed, in another unit, or
    asks for several ranges at once.

    Raises:
        Unsatisfiable: when the range begins behind the last byte, or is empty.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, end
