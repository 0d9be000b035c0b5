"""Recordings: which object in the store holds the audio of which call."""

from collections.abc import Collection

from domain.times import now
from persistence import pages, quotas
from persistence.models import Call, HeldRecording, Recording


def add(organization_id: str, call_id: str, *, key: str, content_type: str, size: int, sha256: str) -> Recording:
    """Write down where the call's audio is, and count it; `size` in bytes."""
    quotas.count_recording(organization_id, size)
    return Recording.create(
        organization=organization_id, call=call_id, key=key, content_type=content_type, size=size, sha256=sha256
    )


def of_call(organization_id: str, call_id: str) -> Recording | None:
    """Return the recording of the call."""
    return Recording.get_or_none(Recording.organization == organization_id, Recording.call == call_id)


def known_keys(keys: list[str]) -> set[str]:
    """Return those of `keys` that belong to a call, or wait for one."""
    # In this order: what waits may find its call between the two questions, never the other way round.
    return {
        row.key for model in (HeldRecording, Recording) for row in model.select(model.key).where(model.key.in_(keys))
    }


def get(recording_id: str) -> Recording | None:
    """Return the recording of that id; only for who shows a link that we signed for it."""
    return Recording.get_or_none(Recording.id == recording_id)


def remove(organization_id: str, ids: Collection[str]) -> int:
    """Delete the rows of recordings whose objects are gone, mark their calls, and count them no more.

    Returns:
        how many were deleted.
    """
    chosen = pages.among(Recording, organization_id, Recording.id, ids)
    removed = list(Recording.delete().where(chosen).returning(Recording.size, Recording.call).execute()) if ids else []
    if not removed:
        return 0
    calls = pages.among(Call, organization_id, Call.id, [recording.call_id for recording in removed])
    Call.update(recording_removed_at=now()).where(calls).execute()
    quotas.count_recording(organization_id, -sum(recording.size for recording in removed))
    return len(removed)
