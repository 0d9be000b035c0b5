"""Removing recordings that belong to no call: what a process leaves that dies between storing and committing."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from actions.erase_contact import remove_left_recordings
from actions.relay import Relay
from domain.times import later
from persistence import erasure, organizations, recordings
from providers.storage.keys import StoredKey

_PREFIX = "org/"
_BATCH = 200


@dataclass(slots=True)
class Swept:
    """How many objects there were, how many belonged to no call, and how many of those were removed.

    `left` counts recordings of calls whose contact was erased; an earlier version could leave them behind.
    """

    objects: int = 0
    orphans: int = 0
    removed: int = 0
    left: int = 0


async def sweep_recordings(relay: Relay, *, older_than: float = 3600, apply: bool = False) -> Swept:
    """Look at every stored recording; with `apply`, remove those without a call that are older than that many seconds.

    The age keeps it off calls that are just being recorded, whose object is there before their row.
    """
    swept, before = Swept(), later(-older_than)
    async for batch in _batches(relay):
        swept.objects += len(batch)
        old = [stored.key for stored in batch if stored.modified_at <= before]
        known = await relay.database.read(lambda old=old: recordings.known_keys(old))  # type: ignore[misc]
        for key in old:
            if key not in known:
                swept.orphans += 1
                swept.removed += await _remove(relay, key) if apply else 0
    for organization in await relay.database.read(organizations.everyone):
        swept.left += await relay.database.read(partial(erasure.count_left, organization.id))
        if apply:
            async for _ in remove_left_recordings(relay, organization.id):
                pass
    return swept


async def _batches(relay: Relay) -> AsyncIterator[list[StoredKey]]:
    batch: list[StoredKey] = []
    async for stored in relay.store.keys(_PREFIX):
        batch.append(stored)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


async def _remove(relay: Relay, key: str) -> int:
    await relay.store.remove(key)
    return 1
