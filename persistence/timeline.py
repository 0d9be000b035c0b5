"""What happened with a contact: notes, calls, messages and transfer requests, in one order."""

from collections.abc import Callable

from domain.positions import Position
from persistence import calls, contact_notes, pages
from persistence.models import Call, ContactNote, Message, TransferRequest

Entry = tuple[Position, ContactNote | Call | Message | TransferRequest]
_Pages = Callable[[str, str, Position | None, int], list[Entry]]


def page(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[Entry]:
    """Return at most `limit` entries after the position, newest first: each one's position and row.

    Every kind is asked for a page of its own and the newest of them all are kept, so an entry further back costs no
    more than the first. Calls come without transcripts.
    """
    entries = [entry for kind in _KINDS for entry in kind(organization_id, contact_id, after, limit)]
    entries.sort(key=lambda entry: (entry[0].at, entry[0].id), reverse=True)
    return entries[:limit]


def _notes(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[Entry]:
    found = contact_notes.page(organization_id, contact_id, after, limit)
    return [(Position(note.created_at, note.id), note) for note in found]


def _calls(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[Entry]:
    query = Call.select(Call.id).where(Call.organization == organization_id, Call.contact == contact_id)
    ids = [call.id for call in pages.following(query, Call.started_at, Call.id, after, limit)]
    return [(Position(call.started_at, call.id), call) for call in calls.among(organization_id, ids)]


def _messages(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[Entry]:
    query = Message.select().where(Message.organization == organization_id, Message.contact == contact_id)
    found = pages.following(query, Message.created_at, Message.id, after, limit)
    return [(Position(message.created_at, message.id), message) for message in found]


def _transfer_requests(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[Entry]:
    mine = (TransferRequest.organization == organization_id) & (TransferRequest.contact == contact_id)
    found = pages.following(
        TransferRequest.select().where(mine), TransferRequest.requested_at, TransferRequest.id, after, limit
    )
    return [(Position(request.requested_at, request.id), request) for request in found]


_KINDS: tuple[_Pages, ...] = (_notes, _calls, _messages, _transfer_requests)
