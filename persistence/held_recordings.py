"""Audio that came before its call: kept until the call is recorded, which then takes it over."""

from peewee import Expression, Value

from persistence import quotas
from persistence.models import HeldRecording


def in_conversation(organization_id: str, elevenlabs_conversation_id: str) -> HeldRecording | None:
    """Return the audio held for that conversation."""
    return HeldRecording.get_or_none(
        HeldRecording.organization == organization_id,
        HeldRecording.elevenlabs_conversation_id == elevenlabs_conversation_id,
    )


def add(
    organization_id: str,
    elevenlabs_conversation_id: str,
    *,
    call_id: str,
    key: str,
    content_type: str,
    size: int,
    sha256: str,
) -> bool:
    """Hold the audio for the call that will have `call_id`; False, and nothing written, when some is held already."""
    row = {"id": call_id, "key": key, "content_type": content_type, "size": size, "sha256": sha256}
    written = (
        HeldRecording.insert(organization=organization_id, elevenlabs_conversation_id=elevenlabs_conversation_id, **row)
        .on_conflict_ignore()
        .as_rowcount()
        .execute()
    )
    if written:
        quotas.count_recording(organization_id, size)
    return bool(written)


def give_up(organization_id: str, held_id: str) -> bool:
    """Have no call take the audio over any more; False when one has, or the audio was removed.

    The row stays until the audio is gone, so that a removal that was cut off can be finished (see `is_given_up`).
    """
    mine = (HeldRecording.organization == organization_id) & (HeldRecording.id == held_id)
    return bool(HeldRecording.update(elevenlabs_conversation_id=f"-{held_id}").where(mine).execute())


def is_given_up() -> Expression:
    """Return the condition that a row's audio was to be removed."""
    return HeldRecording.elevenlabs_conversation_id == Value("-").concat(HeldRecording.id)


def remove(organization_id: str, held_id: str) -> bool:
    """Hold it no longer, the organization being locked; False when a call has taken it over in the meantime."""
    mine = (HeldRecording.organization == organization_id) & (HeldRecording.id == held_id)
    sizes = [row.size for row in HeldRecording.delete().where(mine).returning(HeldRecording.size).execute()]
    quotas.count_recording(organization_id, -sum(sizes))
    return bool(sizes)
