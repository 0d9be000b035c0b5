"""Reading what was stored: requests with a token, and calls, notes and messages to read."""

from typing import Any

import httpx

from actions import administer
from domain.identifiers import new_id
from domain.principals import Role
from persistence import calls, users
from persistence.models import Call, ContactNote, Conversation, Message, TransferRequest
from tests.support.api import Api

THEIRS, OURS = "+14165550123", "+12362320246"


async def get(api: Api, path: str, token: str | None = None, **params: Any) -> httpx.Response:
    """Get `path` as the superadmin, or with another token; `from_` stands for `from`."""
    query = {name.rstrip("_"): value for name, value in params.items()}
    headers = {"Authorization": f"Bearer {token or api.superadmin_token}"}
    return await api.http.get(path, params=query or None, headers=headers)


async def contact_of(api: Api, number: str = THEIRS, name: str = "Sam Caller", organization_id: str = "") -> str:
    """Add a contact and return its id."""
    contact = await administer.add_contact(api.relay, organization_id or api.organization_id, number, name)
    return str(contact.id)


async def user_of(api: Api, role: Role, organization_id: str = "") -> tuple[str, str]:
    """Add a user without a password that works; return the id and a token."""
    chosen = organization_id or api.organization_id
    email = f"{role.value}-{chosen}@example.com"

    def unit() -> str:
        user = users.add(chosen, email=email, full_name="Robin Example", password_hash="none", role=role.value)
        return str(user.id)

    user_id = await api.relay.database.write(unit)
    return user_id, (await administer.issue_token(api.relay, email, 600)).get_secret_value()


def call_row(organization_id: str, contact_id: str, **changes: Any) -> Call:
    """Write a call, in a unit, as ingest would."""
    row = {
        "source": "ingest",
        "direction": "inbound",
        "from_number": THEIRS,
        "to_number": OURS,
        "status": "completed",
        "duration": 10,
        "started_at": "2026-05-15T09:10:00.000Z",
        "ended_at": "2026-05-15T09:10:10.000Z",
    } | changes
    row = {"id": new_id(), "contact": contact_id} | row
    assert calls.add(organization_id, Call(**row))
    return Call.get(Call.id == row["id"])


def note_row(organization_id: str, contact_id: str, **changes: Any) -> ContactNote:
    """Write a note, in a unit."""
    row = {"type": "ai_summary", "note": "Asked about Friday."} | changes
    return ContactNote.create(organization=organization_id, contact=contact_id, **row)


def message_row(organization_id: str, contact_id: str, conversation_id: str, **changes: Any) -> Message:
    """Write a message, in a unit."""
    row = {
        "direction": "outbound",
        "author": "ai",
        "text": "Here is the link.",
        "from_number": OURS,
        "to_number": THEIRS,
        "status": "sent",
        "provider": "console",
    } | changes
    return Message.create(organization=organization_id, contact=contact_id, conversation=conversation_id, **row)


def conversation_row(organization_id: str, contact_id: str, **changes: Any) -> Conversation:
    """Write a conversation, in a unit."""
    row = {"channel_type": "sms", "channel_identifier": OURS} | changes
    return Conversation.create(organization=organization_id, contact=contact_id, **row)


def transfer_row(organization_id: str, contact_id: str | None, **changes: Any) -> TransferRequest:
    """Write a transfer request, in a unit."""
    return TransferRequest.create(organization=organization_id, contact=contact_id, **{"reason": "Invoice"} | changes)
