"""What is missing from a log, and where."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from domain.events import StoredEvent


class Reason(StrEnum):
    """Why something is missing; what a client does about it is published in `openapi/events.yaml`."""

    PRUNED = "pruned"
    HOLE = "hole"
    EPOCH = "epoch"
    AHEAD = "ahead"


class Gap(NamedTuple):
    """What came after `since` is missing; delivery goes on with `oldest` or later."""

    since: int
    oldest: int
    reason: Reason


def steps(after: int, events: Iterable[StoredEvent]) -> Iterator[tuple[StoredEvent, int | None]]:
    """Yield each event with the sequence before it if what lies between the two is missing, else with None."""
    for event in events:
        yield event, after if event.sequence > after + 1 else None
        after = event.sequence


def reason_below(after: int, oldest: int | None) -> Reason:
    """Say why what follows `after` is missing from a log whose oldest event is `oldest` (None: it holds nothing)."""
    return Reason.HOLE if oldest is not None and oldest <= after else Reason.PRUNED
