"""Where there is one of a thing in most tests, there are two here: calls, contacts, texts, keys and moments."""

from collections.abc import Iterator
from typing import Any

import pytest

from domain.positions import Position
from domain.principals import KeyKind
from domain.times import later
from persistence import (
    api_keys,
    calls,
    contact_notes,
    contacts,
    conversations,
    erasure,
    held_recordings,
    messages,
    organizations,
    recordings,
    timeline,
    transfer_requests,
    units,
    voice_ai_configs,
)
from persistence.database import Database
from persistence.models import ApiKey, Call, ContactNote, Message, TransferRequest, User

AT, SPOKEN = "2026-05-15T09:10:00.000Z", "conv_1"
CALL = {
    "source": "ingest",
    "direction": "inbound",
    "from_number": "+14165550123",
    "to_number": "+12362320246",
    "status": "completed",
    "duration": 1,
    "started_at": AT,
    "ended_at": AT,
    "elevenlabs_conversation_id": SPOKEN,
}
TEXT = {"author": "ai", "text": "x", "from_number": "+1", "to_number": "+2", "provider": "console"}


@pytest.fixture
def engine() -> str:
    """Run these on SQLite alone: what is looked at here is the same on both engines."""
    return "sqlite"


def add_call(organization_id: str, **values: Any) -> str:
    call = Call(**CALL | values)
    assert calls.add(organization_id, call)
    return str(call.id)


def queue(organization_id: str, contact_id: str, **values: Any) -> Message:
    conversation = conversations.find_or_create(organization_id, contact_id, "sms", "+12362320246")
    return messages.queue(organization_id, TEXT | {"contact": contact_id, "conversation": conversation.id} | values)


async def test_of_two_calls_in_a_conversation_the_newer_one_is_found(database: Database, organization_id: str) -> None:
    """What a caller asks for now belongs to the call that is on."""

    def unit() -> tuple[list[str], str]:
        ids = [add_call(organization_id, external_call_id=name) for name in "ab"]
        found = calls.by_elevenlabs_conversation(organization_id, SPOKEN)
        assert found is not None
        return ids, found.id

    ids, found = await database.write(unit)

    assert found == ids[1]


async def test_a_call_that_comes_twice_is_counted_once(database: Database, organization_id: str) -> None:
    """The number beside the organization is that of the rows."""

    def unit() -> tuple[list[bool], int]:
        written = [calls.add(organization_id, Call(**CALL | {"external_call_id": name})) for name in ("a", "a", "b")]
        return written, calls.count(organization_id)

    assert await database.write(unit) == ([True, False, True], 2)


async def test_what_was_tied_to_a_call_stays_with_it(database: Database, organization_id: str) -> None:
    """A second call in the same conversation gets what was not tied to the first."""

    def said(contact_id: str) -> list[Any]:
        note = contact_notes.add_from_tool(
            organization_id, contact_id, "x", tool="create-note", elevenlabs_conversation_id=SPOKEN
        )
        wish = transfer_requests.add(organization_id, {"elevenlabs_conversation_id": SPOKEN})
        return [note, queue(organization_id, contact_id, elevenlabs_conversation_id=SPOKEN), wish]

    def tie(call_id: str, contact_id: str) -> None:
        contact_notes.attach_to_call(organization_id, SPOKEN, call_id)
        messages.attach_to_call(organization_id, SPOKEN, call_id)
        transfer_requests.attach_to_call(organization_id, SPOKEN, call_id, contact_id)

    def unit() -> tuple[list[str], list[set[str]]]:
        contact = contacts.upsert(organization_id, "+14165550123", None)
        ids, tied = [add_call(organization_id, external_call_id=name) for name in "ab"], []
        for call_id in ids:
            rows = said(contact.id)
            tie(call_id, contact.id)
            tied.append({type(row).get_by_id(row.id).call_id for row in rows})
        counts = [
            model.select().where(model.call == ids[0]).count() for model in (ContactNote, Message, TransferRequest)
        ]
        assert counts == [1, 1, 1]
        return ids, tied

    ids, tied = await database.write(unit)

    assert tied == [{ids[0]}, {ids[1]}]


async def test_entries_of_one_moment_stand_on_one_page_each(database: Database, organization_id: str) -> None:
    """However the pages are cut, every entry is shown once, whatever its kind."""

    def pages(contact_id: str, limit: int) -> Iterator[str]:
        after: Position | None = None
        while found := timeline.page(organization_id, contact_id, after, limit):
            yield from (position.id for position, _ in found)
            after = found[-1][0]

    def unit() -> tuple[set[str], list[list[str]]]:
        contact_id = contacts.upsert(organization_id, "+14165550123", None).id
        made = [add_call(organization_id, contact=contact_id) for _ in range(2)]
        # The kinds take turns, so that the order of kinds is not that of the ids.
        for _ in range(2):
            note = contact_notes.add_from_tool(
                organization_id, contact_id, "x", tool="create-note", elevenlabs_conversation_id=None
            )
            wish = transfer_requests.add(organization_id, {"contact": contact_id})
            made += [
                note.id,
                queue(organization_id, contact_id).id,
                wish.id,
                add_call(organization_id, contact=contact_id),
            ]
        ContactNote.update(created_at=AT).execute()
        Message.update(created_at=AT).execute()
        TransferRequest.update(requested_at=AT).execute()
        return set(made), [list(pages(contact_id, limit)) for limit in (1, 2, 3, 7, 100)]

    made, found = await database.write(unit)

    assert len(made) == 10
    assert [sorted(each) for each in found] == [sorted(made)] * 5


async def test_more_keys_are_found_than_fit_into_one_statement(database: Database, organization_id: str) -> None:
    """However many tokens are in use, each is looked for."""

    def unit() -> set[str]:
        user = User.create(
            organization=organization_id, email="a@example.com", full_name="A", password_hash="x", role="agent"
        )
        ApiKey.create(organization=organization_id, user=user.id, digest="1200", sealed="x")
        return api_keys.among([str(number) for number in range(1201)], KeyKind.LISTEN)

    assert await database.write(unit) == {"1200"}


async def test_audio_is_erased_that_waits_for_a_call_with_a_person_of_whom_one_thing_is_known(
    database: Database, organization_id: str
) -> None:
    """A note, a text or a wish is enough; audio that waits for somebody else's call stays."""

    def hold(name: str) -> None:
        audio = {"content_type": "audio/mpeg", "size": 1, "sha256": "x"}
        assert held_recordings.add(organization_id, name, call_id=f"{name:0>24}", key=name, **audio)  # type: ignore[arg-type]

    def unit() -> list[str]:
        erased, other = [contacts.upsert(organization_id, f"+1416555012{digit}", None).id for digit in "34"]
        for name in "1234":
            hold(name)
        spoken = [{"elevenlabs_conversation_id": name} for name in "1234"]
        contact_notes.add_from_tool(organization_id, erased, "x", tool="create-note", **spoken[0])
        queue(organization_id, erased, **spoken[1])
        transfer_requests.add(organization_id, {"contact": erased} | spoken[2])
        queue(organization_id, other, **spoken[3])
        return sorted(held.key for held in erasure.held_recordings(organization_id, erased, 100))

    assert await database.write(unit) == ["1", "2", "3"]


async def test_the_set_up_of_a_webhook_is_claimed_by_one_until_its_time_is_over(
    database: Database, organization_id: str
) -> None:
    """Another organization's is free all the while."""

    def claim(seconds: float, whose: str = organization_id) -> bool:
        return voice_ai_configs.claim_webhook_setup(whose, later(seconds)) is not None

    def unit() -> list[bool]:
        other = organizations.add("Other", None).id
        for one in (organization_id, other):
            voice_ai_configs.update(one, {"webhook_wanted": 1})
        claimed = [claim(60), claim(60), claim(60, other)]
        voice_ai_configs.update(organization_id, {"webhook_claimed_until": later(-1)})
        return [*claimed, claim(60)]

    assert await database.write(unit) == [True, False, True, True]


async def test_a_recording_is_known_at_the_moment_at_which_its_call_takes_it_over(
    database: Database, organization_id: str, tmp_path: Any
) -> None:
    """Whoever asks between the two places at which a key may stand finds it all the same."""
    audio = {"key": "a/key", "content_type": "audio/mpeg", "size": 1, "sha256": "x"}
    statements: list[str] = []

    def waiting() -> str:
        assert held_recordings.add(organization_id, SPOKEN, call_id="c" * 24, **audio)  # type: ignore[arg-type]
        return add_call(organization_id)

    call_id = await database.write(waiting)

    def taken_over() -> None:
        held_recordings.remove(organization_id, "c" * 24)
        recordings.add(organization_id, call_id, **audio)  # type: ignore[arg-type]

    def unit() -> set[str]:
        engine = units.engine()
        execute = engine.execute_sql

        def between(sql: str, *values: Any) -> Any:
            statements.append(sql)
            if len(statements) == 2:
                taken_over()
            return execute(sql, *values)

        engine.execute_sql = between
        try:
            return recordings.known_keys(["a/key"])
        finally:
            del engine.execute_sql

    assert await database.write(unit) == {"a/key"}
    assert len(statements) > 2
