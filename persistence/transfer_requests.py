"""Callers' wishes to speak to a person."""

from typing import Any

from persistence.models import TransferRequest


def add(organization_id: str, values: dict[str, Any]) -> TransferRequest:
    """Write down that a person is wanted."""
    return TransferRequest.create(organization=organization_id, **values)


def attach_to_call(organization_id: str, elevenlabs_conversation_id: str, call_id: str, contact_id: str) -> None:
    """Tie every request made during that conversation to the call it turned out to be."""
    TransferRequest.update(call=call_id, contact=contact_id).where(
        TransferRequest.organization == organization_id,
        TransferRequest.elevenlabs_conversation_id == elevenlabs_conversation_id,
        TransferRequest.call.is_null(),
    ).execute()
