"""Callers' wishes to speak to a person."""

from typing import Any

from persistence.models import TransferRequest
from persistence.statements import Given, Statement


def add(organization_id: str, values: dict[str, Any]) -> TransferRequest:
    """Write down that a person is wanted."""
    return TransferRequest.create(organization=organization_id, **values)


def attach_to_call(organization_id: str, elevenlabs_conversation_id: str, call_id: str, contact_id: str) -> None:
    """Tie every request made during that conversation to the call it turned out to be."""
    _ATTACH.run(organization=organization_id, conversation=elevenlabs_conversation_id, call=call_id, contact=contact_id)


def _attach() -> Any:
    return TransferRequest.update(call=Given("call"), contact=Given("contact")).where(
        TransferRequest.organization == Given("organization"),
        TransferRequest.elevenlabs_conversation_id == Given("conversation"),
        TransferRequest.call.is_null(),
    )


_ATTACH = Statement(_attach)
