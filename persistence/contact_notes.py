"""Notes about contacts."""

from persistence.models import ContactNote


def add_from_tool(
    organization_id: str, contact_id: str, note: str, *, tool: str, elevenlabs_conversation_id: str | None
) -> ContactNote:
    """Write a note an agent took; its type tells it from what people write."""
    return ContactNote.create(
        organization=organization_id,
        contact=contact_id,
        type="ai_summary",
        note=note,
        source_tool=tool,
        elevenlabs_conversation_id=elevenlabs_conversation_id,
    )


def contact_in(organization_id: str, elevenlabs_conversation_id: str) -> str | None:
    """Return the contact a note was taken about during that ElevenLabs conversation."""
    query = ContactNote.select(ContactNote.contact).where(
        ContactNote.organization == organization_id,
        ContactNote.elevenlabs_conversation_id == elevenlabs_conversation_id,
    )
    contact_id: str | None = query.order_by(ContactNote.id.desc()).scalar()
    return contact_id
