"""Erasing a person: everything that tells about them goes, recordings first.

It happens in bounded steps, so that it holds nobody up, and can be killed anywhere: each recording's object goes before
the row that names it, and the contact's own row goes last. A second request, or `manage.py retention`, finishes what is
left. The other way round, a crash would leave audio that nothing knows of.

Every write here is ordered with all others of the organization (see README.md). A write that commits between two steps
is therefore seen by the next step.
"""

from collections.abc import AsyncIterator
from functools import partial

import structlog

from actions.announcements import contact_erased
from actions.attach_recording import let_go
from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.errors import NotFound
from persistence import audit, erasure, outbox, recordings
from persistence.erasure import Erased

_ROWS = 200

log = structlog.get_logger()


async def erase_contact(relay: Relay, organization_id: str, contact_id: str, actor: Actor) -> Erased:
    """Erase the contact and everything of that person; return how many rows of each kind went.

    Raises:
        NotFound: when the organization has no such contact.
        StorageUnavailable: when a recording cannot be removed just now; asking again goes on.
    """

    def begin() -> None:
        if erasure.begin(organization_id, contact_id):
            audit.record(organization_id, AuditAction.CONTACT_ERASED, actor, subject=contact_id)
        elif not erasure.is_under_way(organization_id, contact_id):
            raise NotFound("Contact not found")

    await relay.database.write(begin, of=organization_id)
    erased = await finish_erasure(relay, organization_id, contact_id)
    await relay.database.scrub()
    return erased


async def finish_erasure(relay: Relay, organization_id: str, contact_id: str) -> Erased:
    """Erase what is left of a contact whose erasure has begun."""
    total = Erased()
    is_over = False
    while not is_over:
        await _let_go_of_held(relay, organization_id, contact_id)
        removed = await _remove_objects(relay, organization_id, contact_id)
        unit = partial(_step, organization_id, contact_id, removed)
        step, is_over = await relay.database.write(unit, of=organization_id)
        total.add(step)
    log.info("contact.erased", organization_id=organization_id, contact_id=contact_id, calls=total.calls)
    return total


async def remove_left_recordings(relay: Relay, organization_id: str) -> AsyncIterator[int]:
    """Remove recordings of calls whose contact was erased by an earlier version; yield how many, batch by batch.

    Raises:
        StorageUnavailable: if an object cannot be removed; the next call continues.
    """
    while found := await relay.database.read(lambda: erasure.left_recordings(organization_id, _ROWS)):
        for recording in found:
            await relay.store.remove(recording.key)
        unit = partial(recordings.remove, organization_id, [recording.id for recording in found])
        await relay.database.write(unit, of=organization_id)
        yield len(found)
    while held := await relay.database.read(lambda: erasure.left_held_recordings(organization_id, _ROWS)):
        for one in held:
            await let_go(relay, one)
        yield len(held)


async def _let_go_of_held(relay: Relay, organization_id: str, contact_id: str) -> None:
    while found := await relay.database.read(lambda: erasure.held_recordings(organization_id, contact_id, _ROWS)):
        for held in found:
            await let_go(relay, held)


async def _remove_objects(relay: Relay, organization_id: str, contact_id: str) -> list[str]:
    found = await relay.database.read(lambda: erasure.recordings(organization_id, contact_id, _ROWS))
    for recording in found:
        await relay.store.remove(recording.key)
    return [str(recording.id) for recording in found]


def _step(organization_id: str, contact_id: str, removed: list[str]) -> tuple[Erased, bool]:
    if erasure.held_recordings(organization_id, contact_id, 1):
        # It was added since. The next step deletes the notes and texts that it is found by.
        return Erased(), False
    step = erasure.step(organization_id, contact_id, removed, _ROWS)
    if not step.is_nothing or erasure.recordings(organization_id, contact_id, 1):
        return step, False
    # Told last: whoever hears it finds nothing of the person any more, not even in older events.
    if erasure.finish(organization_id, contact_id):
        outbox.append(organization_id, [contact_erased(contact_id)])
    return step, True
