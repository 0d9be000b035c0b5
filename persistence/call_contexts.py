"""What was known of calls when they connected."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any

from peewee import Expression, Query, fn

from persistence import pages
from persistence.models import CallContext
from persistence.statements import Given, Statement

_COLUMNS = ("elevenlabs_conversation_id", "call_sid")


def put(organization_id: str, values: Mapping[str, object]) -> None:
    """Write the context of a call; it replaces that of the same conversation, or of the same call."""
    named = [getattr(CallContext, column) == values[column] for column in _COLUMNS if values.get(column)]
    CallContext.delete().where(CallContext.organization == organization_id, reduce(or_, named)).execute()
    CallContext.create(organization=organization_id, **values)


def find(organization_id: str, conversation_id: str | None, call_sid: str | None, since: str) -> CallContext | None:
    """Return the context of that conversation, or else of that call, if it was written after `since`."""
    for column, value in zip(_COLUMNS, (conversation_id, call_sid), strict=True):
        found = (
            CallContext.get_or_none(
                CallContext.organization == organization_id,
                getattr(CallContext, column) == value,
                CallContext.created_at > since,
            )
            if value
            else None
        )
        if found is not None:
            return found
    return None


def count_old(organization_id: str, before: str) -> int:
    """Return how many contexts were written before that instant."""
    return int(CallContext.select(fn.COUNT(1)).where(_old(organization_id, before)).scalar())


def forget_old(organization_id: str, before: str, limit: int) -> int:
    """Delete at most `limit` contexts that were written before that instant; return how many."""
    query: Any = CallContext.select(CallContext.id).where(_old(organization_id, before)).limit(limit)
    old = [row[0] for row in query.tuples()]
    gone = CallContext.delete().where(pages.among(CallContext, organization_id, CallContext.id, old))
    return int(gone.execute()) if old else 0


def organizations_with_old(before: str, limit: int) -> list[str]:
    """Return the organizations of the `limit` oldest contexts that were written before that instant."""
    query: Any = CallContext.select(CallContext.organization).where(CallContext.created_at < before)
    return list({row[0] for row in query.order_by(CallContext.created_at).limit(limit).tuples()})


def give_to(organization_id: str, contact_id: str, number: str) -> None:
    """Tie the contexts of that number to the contact, and take the number from them: an erasure begins."""
    _GIVE.run(organization=organization_id, contact=contact_id, number=number)


def _old(organization_id: str, before: str) -> Expression:
    return (CallContext.organization == organization_id) & (CallContext.created_at < before)


def _giving() -> Query:
    number = CallContext.caller_number
    return CallContext.update(contact=Given("contact"), caller_number=None).where(
        CallContext.organization == Given("organization"), number == Given("number")
    )


_GIVE = Statement(_giving)
