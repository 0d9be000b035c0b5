"""The identity of an organization's log, and where the log stands.

An epoch is 24 lower-case hex digits: eight of a generation that only ever ascends, and sixteen of chance. Clients
compare epochs for equality. The generation lets several broadcasters that notice a replaced log agree on one new epoch.
"""

import secrets
from typing import NamedTuple


class Standing(NamedTuple):
    """Where a log stands: the sequence of its newest event, 0 when it has had none, and its epoch."""

    sequence: int
    epoch: str


def new_epoch(after: int = 0) -> str:
    """Return an epoch of the generation that follows `after`."""
    return f"{after + 1:08x}{secrets.token_hex(8)}"


def generation(epoch: str) -> int:
    """Return the epoch's generation."""
    return int(epoch[:8], 16)
