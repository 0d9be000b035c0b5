"""Whether the logs are the continuation of what a broadcaster has read, and new epochs when that cannot be proved.

A database goes back when a backup is restored, or when a standby that lagged behind takes over. What was committed and
read before may then be gone, and its sequences are given a second time, to other events.

A broadcaster recognises its database by a checkpoint: a row of its own, with a mark that is new at every writing. A
database that has been taken back holds an older mark, or none. What was read after the checkpoint was written is
recognised by the newest event that was read. A place (see `Database.place`) says which files or which server it is.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from domain.epochs import Standing, generation, new_epoch
from domain.times import later, now
from persistence import models, outbox, readiness
from persistence.statements import Given, Statement
from persistence.units import announce, take_whole_log

# Checkpoints of broadcasters that are long gone are deleted when another one is written.
_STALE_SECONDS = 30 * 86_400


class Witnessed(NamedTuple):
    """One event that was read: enough of it to recognise it by, also after the person it tells of was erased."""

    organization_id: str
    sequence: int
    at: str


class Sight(NamedTuple):
    """What a look at the database found: `mark` of the checkpoint, None without one, and whether events are there.

    `has_witnessed` is False only if another event has the place of one.
    """

    standings: dict[str, Standing]
    mark: str | None
    has_witnessed: bool


def look(checkpoint_id: str, witnessed: Sequence[Witnessed]) -> Sight:
    """Read where every log stands, the checkpoint's mark, and events that were read before.

    Raises:
        Overloaded: while a dump is being restored, when nothing of that can be told.
    """
    readiness.insist_on_completeness()
    there = _moments(witnessed)
    has_witnessed = all(there.get(one[:2], one.at) == one.at for one in witnessed)
    mark = _MARK.value(id=checkpoint_id)
    # Read last: what was published before cannot be above it, unless the log went back.
    return Sight(outbox.standings(), mark, has_witnessed)


def write_checkpoint(checkpoint_id: str, mark: str, place: str) -> None:
    """Write or replace a checkpoint."""
    checkpoint = models.LogCheckpoint
    checkpoint.delete().where(
        (checkpoint.id == checkpoint_id) | (checkpoint.written_at < later(-_STALE_SECONDS))
    ).execute()
    checkpoint.create(id=checkpoint_id, mark=mark, place=place, written_at=now())


def places() -> set[str]:
    """Return where the database was when the checkpoints that are in it were written."""
    query: Any = models.LogCheckpoint.select(models.LogCheckpoint.place).tuples()
    return {place for (place,) in query}


def newest_generation(epochs: Iterable[str]) -> int:
    """Return the newest generation among the epochs, 0 without any."""
    return max(map(generation, epochs), default=0)


def begin_new_epochs(known: int | None = None) -> bool:
    """Give every log a new epoch, and delete every checkpoint, so that each broadcaster looks again.

    With `known`, the newest generation the caller has seen, nothing is done if the database has a newer one: then
    another broadcaster noticed first.

    Returns:
        whether the epochs are new.
    """
    take_whole_log()
    there = newest_generation(standing.epoch for standing in outbox.standings().values())
    if known is not None and there > known:
        return False
    # One epoch for all: it says nothing about an organization, and one statement takes every row.
    models.Organization.update(epoch=new_epoch(max(there, known or 0))).execute()
    models.LogCheckpoint.delete().execute()
    announce("")
    return True


def _moments(witnessed: Sequence[Witnessed]) -> dict[tuple[str, int], str]:
    """Return when the events were committed that stand where these were read."""
    found: dict[tuple[str, int], str] = {}
    for begin in range(0, len(witnessed), _PLACES):
        some = list(witnessed[begin : begin + _PLACES])
        # The statement is the same for few places: the last one is given until there is no room.
        some += some[-1:] * (_PLACES - len(some))
        values: dict[str, str | int] = {}
        for place, one in enumerate(some):
            values |= {f"organization{place}": one.organization_id, f"sequence{place}": one.sequence}
        found |= {(organization_id, sequence): at for organization_id, sequence, at in _AT.rows(**values)}
    return found


def _where_they_were_read() -> Any:
    event = models.Event
    places = [
        (event.organization == Given(f"organization{place}")) & (event.sequence == Given(f"sequence{place}"))
        for place in range(_PLACES)
    ]
    return event.select(event.organization, event.sequence, event.at).where(reduce(or_, places))


_PLACES = 16
_AT = Statement(_where_they_were_read)
_MARK = Statement(
    lambda: models.LogCheckpoint.select(models.LogCheckpoint.mark).where(models.LogCheckpoint.id == Given("id"))
)
