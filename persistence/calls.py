"""Calls: finished ones, unique by the caller's own id as long as they exist."""

from typing import Any

from persistence.models import Call


def by_external_id(organization_id: str, external_call_id: str) -> Call | None:
    """Return the call the outside knows by that id."""
    return Call.get_or_none(Call.organization == organization_id, Call.external_call_id == external_call_id)


def by_elevenlabs_conversation(organization_id: str, elevenlabs_conversation_id: str) -> Call | None:
    """Return the newest call that took place in that ElevenLabs conversation."""
    query = Call.select().where(
        Call.organization == organization_id, Call.elevenlabs_conversation_id == elevenlabs_conversation_id
    )
    return query.order_by(Call.id.desc()).first()


def add(organization_id: str, values: dict[str, Any]) -> bool:
    """Write the call; False, and nothing written, when its external id is taken."""
    written = Call.insert(organization=organization_id, **values).on_conflict_ignore().as_rowcount().execute()
    return bool(written)


def get(organization_id: str, call_id: str) -> Call | None:
    """Return the organization's call of that id."""
    return Call.get_or_none(Call.organization == organization_id, Call.id == call_id)
