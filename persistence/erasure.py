"""Taking a person out of the tables, a bounded step at a time; every step may be the last one before a crash.

The contact goes first in that it loses name and number, so that nothing finds it any more, and last in that its row
stays until nothing refers to it. What is still to be done is therefore always written down.

Of a call remains that there was one: its ids, so that the same call does not come back, its times and its outcome. An
event keeps its place in the sequence and becomes `erased`. Deleting it would leave a hole, which listeners have to take
for a loss; keeping some of its fields would mean to know for all time which of them are personal.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import or_
from typing import Any

from peewee import Expression, ModelSelect

from domain.documents import load
from domain.events import EventName
from domain.times import now
from persistence import call_contexts, calls, pages
from persistence.held_recordings import is_given_up
from persistence.models import (
    Call,
    CallContext,
    Contact,
    ContactEmail,
    ContactNote,
    Conversation,
    Event,
    HeldRecording,
    Message,
    Recording,
    ToolInvocation,
    TransferRequest,
)
from persistence.recordings import remove as remove_recordings

# A call can be known by the conversation's id in either column.
_CONVERSATION_COLUMNS = (
    Call.elevenlabs_conversation_id,
    Call.external_call_id,
    ContactNote.elevenlabs_conversation_id,
    Message.elevenlabs_conversation_id,
    TransferRequest.elevenlabs_conversation_id,
    CallContext.elevenlabs_conversation_id,
)


@dataclass(slots=True)
class Erased:
    """How many rows of each kind were removed or made anonymous."""

    calls: int = 0
    recordings: int = 0
    notes: int = 0
    messages: int = 0
    transfer_requests: int = 0
    emails: int = 0
    contexts: int = 0
    events: int = 0

    def add(self, other: "Erased") -> None:
        """Count what another step did as well."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was left to be done."""
        return self == Erased()


def begin(organization_id: str, contact_id: str) -> bool:
    """Take name and number from the contact; False when there is no such contact, or it has begun before."""
    anonymous = {
        "phone_number": f"-{contact_id[-15:]}",
        "name": "",
        "first_name": None,
        "last_name": None,
        "name_is_placeholder": True,
        "search": "",
        "erased_at": now(),
        "updated_at": now(),
    }
    mine = (Contact.organization == organization_id) & (Contact.id == contact_id)
    number = Contact.select(Contact.phone_number).where(mine, Contact.erased_at.is_null()).scalar()
    if number is not None:
        # Who called is known by the number alone until the call is recorded.
        call_contexts.give_to(organization_id, contact_id, number)
    return bool(Contact.update(anonymous).where(mine, Contact.erased_at.is_null()).execute())


def is_under_way(organization_id: str, contact_id: str) -> bool:
    """Tell whether the contact's erasure has begun and is not over."""
    mine = (Contact.organization == organization_id) & (Contact.id == contact_id)
    return bool(Contact.select(Contact.id).where(mine, Contact.erased_at.is_null(False)).exists())


def under_way(organization_id: str) -> list[str]:
    """Return the contacts whose erasure was begun and is not over."""
    query: Any = Contact.select(Contact.id).where(
        Contact.organization == organization_id, Contact.erased_at.is_null(False)
    )
    return [row[0] for row in query.tuples()]


def recordings(organization_id: str, contact_id: str, limit: int) -> list[Recording]:
    """Return some of the recordings of the contact's calls; their objects have to go before their rows."""
    query = Recording.select(Recording).join(Call)
    query = query.where(Call.organization == organization_id, Call.contact == contact_id)
    return list(query.limit(limit))


def held_recordings(organization_id: str, contact_id: str, limit: int) -> list[HeldRecording]:
    """Return some of the held recordings of conversations that the contact's calls, notes, texts or requests name.

    Those whose removal was cut off are among them, whoever's they were.
    """
    spoken = [
        column.model.select(column).where(
            column.model.organization == organization_id, column.model.contact == contact_id
        )
        for column in _CONVERSATION_COLUMNS
    ]
    return list(_held_in(organization_id, spoken).limit(limit))


# What an erasure of an earlier version left: its steps were not ordered with writes about the same person.


def left_recordings(organization_id: str, limit: int) -> list[Recording]:
    """Return some of the recordings of calls whose contact was erased."""
    return list(_left(organization_id).limit(limit))


def left_held_recordings(organization_id: str, limit: int) -> list[HeldRecording]:
    """Return some of the held recordings of conversations whose call's contact was erased."""
    return list(_left_held(organization_id).limit(limit))


def count_left(organization_id: str) -> int:
    """Return how many recordings, held ones included, are left of contacts that were erased."""
    return int(_left(organization_id).count()) + int(_left_held(organization_id).count())


def _left(organization_id: str) -> "ModelSelect[Recording]":
    query = Recording.select(Recording).join(Call)
    return query.where(Recording.organization == organization_id, Call.contact.is_null())


def _left_held(organization_id: str) -> "ModelSelect[HeldRecording]":
    spoken = [
        Call.select(column).where(Call.organization == organization_id, Call.contact.is_null())
        for column in (Call.elevenlabs_conversation_id, Call.external_call_id)
    ]
    return _held_in(organization_id, spoken)


def _held_in(organization_id: str, conversations: Sequence[Any]) -> "ModelSelect[HeldRecording]":
    named = [HeldRecording.elevenlabs_conversation_id.in_(query) for query in conversations]
    found = reduce(or_, named, is_given_up())
    return HeldRecording.select().where(HeldRecording.organization == organization_id, found)


def step(organization_id: str, contact_id: str, removed: Collection[str], limit: int) -> Erased:
    """Erase at most `limit` rows of each kind; `removed` are recordings whose objects are gone."""
    done = Erased(
        recordings=remove_recordings(organization_id, removed),
        events=_silenced(Event.organization == organization_id, Event.contact_id == contact_id, limit=limit),
    )
    notes, messages, requests, contexts, emails = [
        _ids(model, organization_id, model.contact == contact_id, limit)
        for model in (ContactNote, Message, TransferRequest, CallContext, ContactEmail)
    ]
    spoken = _conversations(ContactNote, notes) | _conversations(Message, messages)
    spoken |= _conversations(CallContext, contexts)
    done.calls, more = _anonymous_calls(organization_id, contact_id, limit)
    requests += _untied(organization_id, spoken | more)
    done.notes = _removed(ContactNote, organization_id, notes)
    done.messages = _removed(Message, organization_id, messages)
    done.transfer_requests = _removed(TransferRequest, organization_id, requests)
    done.contexts = _removed(CallContext, organization_id, contexts)
    done.emails = _removed(ContactEmail, organization_id, emails)
    # A tool that changed the contact itself led to the contact.
    _forget_invocations(organization_id, [*notes, *messages, *requests, contact_id])
    done.events += _silenced_requests(organization_id, set(requests))
    return done


def finish(organization_id: str, contact_id: str) -> bool:
    """Remove the contact and its conversations, when nothing else is left of it; False when somebody else did."""
    mine = (Conversation.organization == organization_id) & (Conversation.contact == contact_id)
    Conversation.delete().where(mine).execute()
    gone = Contact.delete().where(Contact.organization == organization_id, Contact.id == contact_id)
    return bool(gone.execute())


def count_old_requests(organization_id: str, before: str) -> int:
    """Return how many transfer requests of nobody known are older than `before`."""
    return int(TransferRequest.select().where(_untied_before(organization_id, before)).count())


def erase_old_requests(organization_id: str, before: str, limit: int) -> int:
    """Erase at most `limit` transfer requests of nobody known that are older than `before`; return how many."""
    requests = _ids(TransferRequest, organization_id, _untied_before(organization_id, before), limit)
    _forget_invocations(organization_id, requests)
    _silenced_requests(organization_id, set(requests))
    return _removed(TransferRequest, organization_id, requests)


def _untied_before(organization_id: str, before: str) -> Expression:
    mine = TransferRequest.organization == organization_id
    return mine & TransferRequest.contact.is_null() & (TransferRequest.requested_at < before)


def _anonymous_calls(organization_id: str, contact_id: str, limit: int) -> tuple[int, set[str]]:
    """Anonymise calls whose recording is gone; return how many, and the conversations of the voice agent in them."""
    found = _ids(Call, organization_id, Call.contact == contact_id, limit)
    ready = sorted(set(found) - calls.with_recording(organization_id, found))
    if not ready:
        return 0, set()
    spoken = _conversations(Call, ready)
    chosen = pages.among(Call, organization_id, Call.id, ready)
    Call.update(from_number="").where(chosen, Call.direction == "inbound").execute()
    Call.update(to_number="").where(chosen, Call.direction == "outbound").execute()
    nothing = {
        "contact": None,
        "conversation": None,
        "summary": None,
        "transcript": None,
        "caller_name": None,
        "provider_metadata": "{}",
        "payload_digests": "{}",
    }
    return int(Call.update(nothing).where(chosen).execute()), spoken


def _untied(organization_id: str, spoken: Collection[str]) -> list[str]:
    """Return the requests for a person made in these conversations that were never tied to a contact."""
    if not spoken:
        return []
    said = TransferRequest.elevenlabs_conversation_id.in_(sorted(spoken))
    return _ids(TransferRequest, organization_id, TransferRequest.contact.is_null() & said, None)


def _forget_invocations(organization_id: str, results: Collection[str]) -> None:
    # What recognises a repeated tool call is a digest over the number and the text.
    if results:
        mine = (ToolInvocation.organization == organization_id) & ToolInvocation.result_id.in_(list(results))
        ToolInvocation.delete().where(mine).execute()


def _silenced_requests(organization_id: str, requests: Collection[str]) -> int:
    """Silence the events of requests that were announced before anybody knew whose they were."""
    if not requests:
        return 0
    query: Any = Event.select(Event.id, Event.data).where(
        Event.organization == organization_id,
        Event.contact_id.is_null(),
        Event.name == EventName.TRANSFER_REQUESTED.value,
    )
    told = [key for key, data in query.tuples() if load(data).get("transferRequestId") in requests]
    return _silenced(Event.id.in_(told), limit=None) if told else 0


def _silenced(*chosen: Any, limit: int | None) -> int:
    events = Event.select(Event.id).where(*chosen).limit(limit)
    nothing = {"name": EventName.ERASED.value, "data": "{}", "contact_id": None, "conversation_id": None}
    return int(Event.update(nothing).where(Event.id.in_(events)).execute())


def _conversations(model: Any, ids: Collection[str]) -> set[str]:
    query = model.select(model.elevenlabs_conversation_id).where(model.id.in_(ids))
    return {row[0] for row in query.tuples() if row[0]} if ids else set()


def _ids(model: Any, organization_id: str, chosen: Any, limit: int | None) -> list[str]:
    query = model.select(model.id).where(model.organization == organization_id, chosen)
    return [row[0] for row in query.limit(limit).tuples()]


def _removed(model: Any, organization_id: str, ids: Collection[str]) -> int:
    gone = model.delete().where(pages.among(model, organization_id, model.id, ids))
    return int(gone.execute()) if ids else 0
