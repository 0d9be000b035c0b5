"""Whether the database is the continuation of what this broadcaster has read, and new epochs if it is not.

It is not when it is in another place, when the checkpoint that was written last is not in it, when another event stands
where the newest one was read, or when a log ends before what was read or has another epoch (`persistence/continuity.py`
says why). Of several broadcasters that notice, the first gives every log a new epoch, and the others take it over.
"""

import secrets
import time
from collections.abc import Mapping, Sequence

import structlog

from domain.epochs import Standing
from domain.errors import RelayError
from domain.events import StoredEvent
from domain.identifiers import new_id
from persistence import continuity
from persistence.continuity import Sight, Witnessed
from persistence.database import Database
from realtime.recollection import Recollection, Remembered

_CHECKPOINT_SECONDS = 5.0
_MOST_WITNESSED = 512

log = structlog.get_logger()


class Continuity:
    """Recognises the database; `recollection` keeps what is needed for that from one run to the next, if given."""

    def __init__(self, database: Database, recollection: Recollection | None = None) -> None:
        self._database = database
        self._recollection = recollection
        self._id = new_id()
        # A write whose outcome is unknown leaves two marks that may be there; None is no checkpoint at all.
        self._marks: set[str | None] = {None}
        self._place = ""
        self.generation = 0  # the newest that was seen
        self._witnessed: list[Witnessed] = []
        self._saved: list[Witnessed] = []
        self._is_due = True
        self._written_at = 0.0

    async def begin(self) -> None:
        """Recognise the database that was worked with before, if it can be; begin new epochs if it was replaced."""
        self._place = await self._database.place()
        remembered = self._recollection.load() if self._recollection else None
        if remembered:
            self._id, self.generation = remembered.checkpoint_id, remembered.generation
            self._marks, self._witnessed = set(remembered.marks), remembered.witnessed
        sight = await self._look()
        is_known = sight.mark in self._marks and sight.has_witnessed
        is_known = is_known and not any(_is_beyond(one, sight) for one in self._witnessed)
        there = _generation_of(sight.standings)
        # Read afterwards: another broadcaster that began new epochs meanwhile has deleted the old places.
        places = await self._database.read(continuity.places)
        if not places <= {self._place} or (remembered and not is_known and there <= self.generation):
            await self._begin_new_epochs(max(there, self.generation), "it is not the database of the last run")
        else:
            self.generation = there
        await self._write_checkpoint()

    async def look(self, known: Mapping[str, Standing]) -> dict[str, Standing] | None:
        """Return where every log stands, or None once all have new epochs: they are not the continuation of `known`."""
        sight, place = await self._look(), await self._database.place()
        if why := self._break(known, sight, place):
            self._place = place
            await self._begin_new_epochs(max(_generation_of(known), self.generation), why)
            await self._write_checkpoint()
            return None
        self.generation = max(self.generation, _generation_of(sight.standings))
        if self._is_due and time.monotonic() - self._written_at > _CHECKPOINT_SECONDS:
            await self._write_checkpoint()
        elif self._witnessed != self._saved:
            self._remember()
        return sight.standings

    def witness(self, events: Sequence[StoredEvent]) -> None:
        """Remember the newest of the events, until the next look has found it."""
        if events:
            newest = events[-1]
            self._witnessed.append(Witnessed(newest.organization_id, newest.sequence, newest.at))
            self._is_due = True

    @property
    def must_look(self) -> bool:
        """Whether so many batches were witnessed that a look comes before the next one.

        None of them can be dropped: the log may have been replaced between any two.
        """
        return len(self._witnessed) >= _MOST_WITNESSED

    async def _look(self) -> Sight:
        witnessed = tuple(self._witnessed)
        sight = await self._database.read(lambda: continuity.look(self._id, witnessed))
        if sight.has_witnessed:
            self._witnessed = [one for one in self._witnessed if one not in witnessed[:-1]]
        return sight

    def _break(self, known: Mapping[str, Standing], sight: Sight, place: str) -> str | None:
        """Say what breaks the continuity, None if nothing does."""
        if place != self._place:
            return "the database is in another place"
        if sight.mark not in self._marks:
            return "the checkpoint is gone"
        if not sight.has_witnessed:
            return "another event is where the newest one was"
        for organization_id, was in known.items():
            now = sight.standings.get(organization_id)
            if now is None or now.sequence < was.sequence:
                return "a log ends before what was read of it"
            if was.epoch not in ("", now.epoch):
                return "a log has another epoch"
        return None

    async def _begin_new_epochs(self, known: int, why: str) -> None:
        is_first = await self._database.write(lambda: continuity.begin_new_epochs(known))
        log.warning("log.not_continued", reason=why, begins_new_epochs=is_first)
        self._marks, self._witnessed = {None}, []
        self.generation = _generation_of((await self._look()).standings)

    async def _write_checkpoint(self) -> None:
        mark, place = secrets.token_hex(12), self._place
        self._marks.add(mark)
        self._remember()
        try:
            await self._database.write(lambda: continuity.write_checkpoint(self._id, mark, place))
        except RelayError as error:  # it is tried again after the next event
            log.warning("log.checkpoint_failed", reason=str(error))
            return
        self._marks, self._written_at, self._is_due = {mark}, time.monotonic(), False
        self._remember()

    def _remember(self) -> None:
        if self._recollection:
            marks, self._saved = sorted(filter(None, self._marks)), list(self._witnessed)
            self._recollection.save(Remembered(self._id, marks, self.generation, self._saved))


def _is_beyond(one: Witnessed, sight: Sight) -> bool:
    standing = sight.standings.get(one.organization_id)
    return standing is None or standing.sequence < one.sequence


def _generation_of(standings: Mapping[str, Standing]) -> int:
    return continuity.newest_generation(standing.epoch for standing in standings.values() if standing.epoch)
