"""How the engines find what is read: by an index, and not by looking at every row."""

from collections.abc import Callable
from typing import Any

import peewee
import pytest

from domain.calls import CallFilter
from domain.identifiers import new_id
from domain.positions import Position
from domain.principals import KeyKind
from persistence import (
    api_keys,
    availability,
    call_contexts,
    calls,
    contact_emails,
    contact_notes,
    contacts,
    conversations,
    erasure,
    messages,
    organization_hours,
    outbox,
    recordings,
    retention,
    timeline,
    transfer_requests,
    units,
    users,
)
from persistence.database import Database
from persistence.models import (
    Call,
    CallContext,
    Contact,
    ContactNote,
    Conversation,
    Event,
    Message,
    Organization,
    Recording,
    TransferRequest,
    User,
    UserAvailability,
)

AT, LATER = "2026-05-15T09:10:00.000Z", "2026-05-15T09:20:00.000Z"
ORGANIZATIONS, CONTACTS, CALLS = 3, 20, 300
PLACE = Position(LATER, "f" * 24)

# Every reading verb of this room, with what its one organization and one contact are.
READS: dict[str, Callable[[str, str, str], Any]] = {
    "history": lambda org, _, __: calls.page(org, CallFilter(), total=CALLS, offset=10, limit=50),
    "history from the end": lambda org, _, __: calls.page(org, CallFilter(), total=CALLS, offset=250, limit=50),
    "history in time": lambda org, _, __: calls.count(org, CallFilter(since=AT, before=LATER)),
    "history of a contact": lambda org, who, __: calls.page(org, CallFilter(who), total=20, offset=0, limit=50),
    "history by status": lambda org, _, __: calls.page(org, CallFilter(status="busy"), total=20, offset=0, limit=50),
    "history of a user": lambda org, who, __: calls.page(org, CallFilter(user_id=who), total=20, offset=0, limit=50),
    "history by external id": lambda org, _, __: calls.count(org, CallFilter(external_call_id="x")),
    "history counted": lambda org, _, __: calls.count(org),
    "statistics": lambda org, _, __: calls.figures(org, AT, LATER),
    "recordings": lambda org, _, __: calls.with_recording(org, ["a", "b"]),
    "recording": lambda org, _, call: recordings.of_call(org, call),
    "contacts": lambda org, _, __: contacts.page(org, None, total=CONTACTS, offset=10, limit=25),
    "contacts counted": lambda org, _, __: contacts.count(org),
    "emails": lambda org, who, __: contact_emails.of(org, [who]),
    "context of a conversation": lambda org, _, __: call_contexts.find(org, "conv", "sid", AT),
    "notes counted": lambda org, who, __: contact_notes.count(org, who),
    "notes by number": lambda org, who, __: contact_notes.numbered(org, who, 5, 10),
    "contexts of a number": lambda org, who, __: call_contexts.give_to(org, who, "+1"),
    "old contexts": lambda org, _, __: call_contexts.forget_old(org, AT, 100),
    "who has old contexts": lambda _, __, ___: call_contexts.organizations_with_old(AT, 100),
    "who is there": lambda org, _, __: availability.counts(org, AT),
    "who is there no more": lambda _, __, ___: availability.lapsed(AT, 100),
    "business hours": lambda org, _, __: organization_hours.get(org),
    "notes": lambda org, who, __: contact_notes.page(org, who, PLACE, 50),
    "timeline": lambda org, who, __: timeline.page(org, who, PLACE, 50),
    "conversations": lambda org, who, __: conversations.of_contact(org, who, "sms"),
    "messages": lambda org, who, __: messages.page(org, who, PLACE, 50),
    "messages counted": lambda org, who, __: messages.count(org, who),
    "events": lambda org, _, __: outbox.after(org, 5, 100),
    "oldest event": lambda org, _, __: outbox.oldest(org),
    "token versions": lambda _, who, __: users.token_versions([who]),
    "keys": lambda _, who, __: api_keys.among([who], KeyKind.LISTEN),
    "erasure": lambda org, who, __: erasure.step(org, who, ["r"], 100),
    "recordings to erase": lambda org, who, __: erasure.recordings(org, who, 100),
    "the end of an erasure": lambda org, _, __: erasure.finish(org, "nobody"),
    "requests at the time of a call": lambda org, who, call: transfer_requests.attach_by_time(
        org, "+1", Call(id=call, contact=who, started_at=AT, ended_at=LATER)
    ),
    "old recordings": lambda org, _, __: retention.old_recordings(org, AT, 100),
    "old transcripts": lambda org, _, __: retention.clear_transcripts(org, "2020", 100),
    "old events": lambda org, _, __: retention.prune_events(org, "2020", 100),
}


@pytest.fixture
async def crowded(database: Database) -> tuple[str, str, str]:
    """Fill every table that is read; return an organization, one of its contacts and one of its calls."""
    return await database.write(_fill)


def _fill() -> tuple[str, str, str]:
    for number in range(ORGANIZATIONS):
        organization = Organization.create(name=f"Org {number}")
        people = [
            Contact(
                id=new_id(), organization=organization.id, phone_number=f"+1416555{index:04d}", name="x", search="x"
            )
            for index in range(CONTACTS)
        ]
        Contact.bulk_create(people, 100)
        staff = [
            User(
                id=new_id(),
                organization=organization.id,
                email=new_id(),
                full_name="x",
                password_hash="x",
                role="agent",
            )
            for _ in range(CALLS)
        ]
        User.bulk_create(staff, 50)
        present = [
            UserAvailability(
                user=who.id, organization=organization.id, is_online=True, is_available=True, online_until=LATER
            )
            for who in staff
        ]
        UserAvailability.insert_many([row.__data__ for row in present]).execute()
        connected = [
            CallContext(
                id=new_id(),
                organization=organization.id,
                elevenlabs_conversation_id=f"conv_{index}",
                call_sid=f"sid_{index}",
                caller_number=f"+1{index}",
                created_at=f"2026-05-15T{index // 60:02d}:{index % 60:02d}:00.000Z",
            )
            for index in range(CALLS)
        ]
        CallContext.bulk_create(connected, 50)
        threads = [
            Conversation(
                id=new_id(), organization=organization.id, contact=who.id, channel_type="sms", channel_identifier="+1"
            )
            for who in people
        ]
        Conversation.bulk_create(threads, 100)
        rows = [_call(organization.id, people[index % CONTACTS].id, index) for index in range(CALLS)]
        Call.bulk_create(rows, 50)
        for model, build in ((Recording, _recording), (ContactNote, _note), (Message, _message), (Event, _event)):
            model.bulk_create([build(organization.id, rows[i], threads[i % CONTACTS], i) for i in range(CALLS)], 50)
        wishes = [TransferRequest(id=new_id(), organization=organization.id, contact=call.contact_id) for call in rows]
        TransferRequest.bulk_create(wishes, 50)
    if not isinstance(units.engine(), peewee.SqliteDatabase):
        units.engine().execute_sql("ANALYZE")
    return organization.id, people[0].id, rows[0].id


def _call(organization_id: str, contact_id: str, index: int) -> Call:
    moment = f"2026-05-15T{index // 60:02d}:{index % 60:02d}:00.000Z"
    return Call(
        id=new_id(),
        organization=organization_id,
        contact=contact_id,
        source="ingest",
        direction="inbound",
        from_number="+1",
        to_number="+2",
        status=("completed", "busy", "failed", "no-answer")[index % 4],
        duration=1,
        started_at=moment,
        ended_at=moment,
        transcript="[]",
        external_call_id=f"e{index}",
    )


def _recording(organization_id: str, call: Call, _: Conversation, index: int) -> Recording:
    return Recording(
        id=new_id(),
        organization=organization_id,
        call=call.id,
        key=call.id,
        content_type="audio/mpeg",
        size=1,
        sha256="x",
    )


def _note(organization_id: str, call: Call, _: Conversation, index: int) -> ContactNote:
    return ContactNote(id=new_id(), organization=organization_id, contact=call.contact_id, type="note", note="x")


def _message(organization_id: str, call: Call, thread: Conversation, index: int) -> Message:
    return Message(
        id=new_id(),
        organization=organization_id,
        contact=call.contact_id,
        conversation=thread.id,
        direction="outbound",
        author="ai",
        text="x",
        from_number="+1",
        to_number="+2",
        status="sent",
        provider="console",
    )


def _event(organization_id: str, call: Call, thread: Conversation, index: int) -> Event:
    return Event(
        organization=organization_id,
        sequence=index + 1,
        name="call_ended",
        at=AT,
        contact_id=call.contact_id,
        data="{}",
    )


async def test_nothing_that_is_read_is_searched_for_row_by_row(
    database: Database, crowded: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statement of every reading verb seeks in an index, and lists come out of it in their order."""

    def unit() -> dict[str, list[str]]:
        return {name: _plans(lambda read=read: read(*crowded), monkeypatch) for name, read in READS.items()}  # type: ignore[misc]

    plans = await database.write(unit)

    assert all(plans.values())
    assert {name: bad for name, found in plans.items() if (bad := [plan for plan in found if _is_slow(plan)])} == {}


async def test_a_read_without_an_index_would_be_noticed(
    database: Database, crowded: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above looks at what it should."""

    def unit() -> list[str]:
        return _plans(lambda: list(Call.select().where(Call.agent_name == crowded[0])), monkeypatch)

    assert [plan for plan in await database.write(unit) if _is_slow(plan)]


def _plans(read: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    engine = units.engine()
    execute = engine.execute_sql
    plans: list[str] = []

    def explained(sql: str, params: Any = None) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE")):
            plans.append(_plan(execute, sql, params))
        return execute(sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "execute_sql", explained)
        read()
    return plans


def _plan(execute: Any, sql: str, params: Any) -> str:
    if isinstance(units.engine(), peewee.SqliteDatabase):
        lines = [row[3] for row in execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()]
    else:
        # With tables this small PostgreSQL would rather read them whole, whatever indexes there are.
        execute("SET LOCAL enable_seqscan = off")
        lines = [row[0].strip() for row in execute(f"EXPLAIN {sql}", params).fetchall()]
    return "\n".join([*lines, f"in {sql}"])


def _is_slow(plan: str) -> bool:
    """Tell whether a table, or an index, is gone through from end to end; organizations are few."""
    lines = plan.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if "organization" in line.split(" USING ")[0].replace("organization_id", ""):
            continue
        # SQLite says SCAN for going through and SEARCH for seeking; PostgreSQL names what it seeks by in the next line.
        unsought = " Scan using " in line and not following.startswith("Index Cond")
        # Ids were given, and all that the organization has is gone through for them.
        unused = line.endswith("(organization_id=?)") and " IN (" in plan
        if line.startswith("SCAN") or "Seq Scan" in line or unsought or unused:
            return True
    return False
