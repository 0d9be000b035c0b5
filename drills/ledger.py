"""The books: what the clients were told, held against what is there."""

import itertools
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from actions.relay import Relay
from domain.times import from_wire
from drills.load import Seen
from drills.outcome import insist
from drills.stage import Stage
from persistence.models import Call, ContactNote, Event, Message, Recording

_OF_A_CALL = ("call_initiated", "call_ended", "call_recording_ready", "fetch_messages")
_WRITTEN = ("queued",)

# The window begins when a call is taken up, and its row is written a little later.
_SLACK_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Balance:
    """How much of what was acknowledged is missing, and how much is there more than once."""

    lost: int
    doubled: int


async def balance(stage: Stage, seen: Seen, sent: Collection[str] = ()) -> Balance:
    """Compare the database with what the clients saw, and the texts the provider got (`sent`) with the messages.

    Raises:
        Broken: when a row lacks its events or its object, a sequence has a gap, a text was sent without a row of its
            own, or a tool call was done twice within its window.
    """
    async with stage.relay() as relay:
        ours = stage.organization_id
        calls = await _rows(relay, Call.external_call_id, Call.id, of=ours)
        notes = await _rows(relay, ContactNote.note, ContactNote.id, ContactNote.created_at, of=ours)
        messages = await _rows(relay, Message.text, Message.id, Message.created_at, Message.status, of=ours)
        await _check_events(relay, ours, [row[1] for row in calls], [row[1] for row in notes], messages)
        await _check_objects(relay, whole=False)
    texts = Counter(text for text, *_ in messages)
    insist(Counter(sent) <= texts, "a text was sent more often than there are rows that tell of it")
    for rows in (notes, messages):
        _check_repeats(stage.settings.tool_replay_seconds, rows)
    there = [
        _compare(seen.calls, calls),
        _compare(seen.notes, [row[:2] for row in notes]),
        Balance(len(seen.texts - texts.keys()), _more_than_once(texts)),
        Balance(len(seen.texts - set(sent)) if sent else 0, _more_than_once(Counter(sent))),
    ]
    return Balance(sum(one.lost for one in there), sum(one.doubled for one in there))


async def check_swept(stage: Stage) -> None:
    """Sweep, and insist that objects and rows are the same afterwards."""
    await stage.manage("sweep", "--apply", "--older-than", "0")
    async with stage.relay() as relay:
        await _check_objects(relay, whole=True)


def _compare(acknowledged: Mapping[str, str], there: list[tuple[Any, ...]]) -> Balance:
    rows: dict[str, str] = dict(there)
    lost = sum(rows.get(name) != key for name, key in acknowledged.items())
    return Balance(lost, _more_than_once(Counter(name for name, _ in there)))


def _check_repeats(window: float, rows: list[tuple[Any, ...]]) -> None:
    """Whoever repeats a tool call after the window is taken at their word; within it, nothing is done twice."""
    moments: dict[str, list[datetime]] = {}
    for words, _, created_at, *_ in rows:
        moments.setdefault(words, []).append(from_wire(created_at))
    for words, made in moments.items():
        gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(sorted(made))]
        insist(all(gap > window - _SLACK_SECONDS for gap in gaps), f"{words!r} was done again after {gaps} seconds")


async def _rows(relay: Relay, *columns: Any, of: str | None = None) -> list[tuple[Any, ...]]:
    """Return these columns of every row, or of an organization's."""
    model = columns[0].model

    def unit() -> list[tuple[Any, ...]]:
        chosen = model.select(*columns)
        return list((chosen if of is None else chosen.where(model.organization == of)).tuples())

    return await relay.database.read(unit)


def _more_than_once(counted: Counter[str]) -> int:
    return sum(count - 1 for count in counted.values())


async def _check_events(
    relay: Relay, organization_id: str, calls: list[str], notes: list[str], messages: list[tuple[Any, ...]]
) -> None:
    rows = sorted(await _rows(relay, Event.organization, Event.sequence, Event.name, Event.data, of=organization_id))
    _check_sequences(rows)
    told = Counter((name, subject) for _, _, name, data in rows for subject in _subjects(json.loads(data)))
    expected = Counter((name, call) for call in calls for name in _OF_A_CALL)
    expected += Counter(("note_created", note) for note in notes)
    expected += Counter(("fetch_messages", key) for _, key, *_ in messages)
    expected += Counter(("message_status", key) for _, key, _, status in messages if status not in _WRITTEN)
    insist(told == expected, f"rows and events differ: {(told - expected) + (expected - told)}")


def _check_sequences(rows: list[tuple[Any, ...]]) -> None:
    by_organization: dict[str, list[int]] = {}
    for organization, sequence, *_ in rows:
        by_organization.setdefault(organization, []).append(sequence)
    for sequences in by_organization.values():
        insist(sequences == list(range(1, len(sequences) + 1)), "the sequences have a gap")


def _subjects(data: Mapping[str, Any]) -> list[str]:
    return [data[name] for name in ("callId", "noteId", "messageId") if name in data]


async def _check_objects(relay: Relay, *, whole: bool) -> None:
    objects = {stored.key async for stored in relay.store.keys("org/")}
    rows = {key for (key,) in await _rows(relay, Recording.key)}
    insist(rows <= objects, "a recording has no object")
    insist(not whole or objects == rows, f"objects without a call: {sorted(objects - rows)}")
