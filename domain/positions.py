"""Where a reader stands in a list that runs from new to old: the last entry they saw, by its moment and id.

On the wire a position is `<moment>_<id>`. It names a place and not a page, so entries that arrive meanwhile neither
shift nor repeat anything.
"""

import re
from dataclasses import dataclass

from domain.errors import InvalidRequest

_PATTERN = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z)_([0-9a-f]{24})")


@dataclass(frozen=True, slots=True)
class Position:
    """The place right after the entry with that moment (in wire form) and id."""

    at: str
    id: str

    def __str__(self) -> str:
        return f"{self.at}_{self.id}"


def to_position(cursor: str) -> Position:
    """Read a position as `str` wrote it.

    Raises:
        InvalidRequest: when `cursor` is none of ours.
    """
    found = _PATTERN.fullmatch(cursor)
    if found is None:
        raise InvalidRequest("Invalid parameter: cursor is not one that was returned as `next`")
    return Position(found[1], found[2])
