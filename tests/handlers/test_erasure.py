"""Erasing a person: what goes, what stays, and that it can be done again after any crash."""

import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actions.attach_recording import attach_recording
from actions.erase_contact import erase_contact
from domain.audit import Actor
from domain.errors import StorageUnavailable
from domain.events import EventName
from domain.principals import Role
from persistence import outbox
from persistence.models import MODELS, AuditEntry, Call, Contact, Event, HeldRecording, ToolInvocation, TransferRequest
from tests.support import published_events
from tests.support.api import Api
from tests.support.audio import mp3, mp3_base64
from tests.support.reading import OURS, contact_of, get, user_of
from tests.support.waiting import until

pytestmark = pytest.mark.any_engine

# Everything that could give the person away: none of it may be found anywhere afterwards.
ONE_ENGINE = pytest.mark.parametrize("engine", ["sqlite"])
NUMBER, NAME = "+14165550123", "Zebediah Quux"
TRACES = [NUMBER, NUMBER[1:], "Zebediah", "Quux", "zebediah", "secret words", "a wish for Margaret", "text to Margaret"]
TRACES += ["zq@example.com", "Marguerite"]


def call(direction: str, number: int, **changes: Any) -> dict[str, Any]:
    theirs, ours = ("fromNumber", "toNumber") if direction == "inbound" else ("toNumber", "fromNumber")
    return {
        "direction": direction,
        theirs: NUMBER,
        ours: OURS,
        "duration": 5,
        "status": "completed",
        "transcript": [{"role": "user", "message": "secret words"}],
        "summary": "secret words",
        "recording": mp3_base64(),
        "externalCallId": f"vendor-{number}",
        "callerName": NAME,
        "metadata": {"conversation_id": f"conv_{number}", "caller": NAME},
    } | changes


async def live(api: Api) -> str:
    """Have a person leave every kind of trace; return the contact."""
    connected = {"conversation_id": "conv_connected", "caller_id": NUMBER, "called_id": OURS}
    await api.post("/api/webhook/elevenlabs/personalization", connected, api.demo.tool_secret.get_secret_value())
    contact_id = await contact_of(api, NUMBER, NAME)
    agent = {"phone_number": NUMBER, "conversation_id": "conv_1"}
    await api.tool("transfer", {"reason": "a wish for Margaret", "conversation_id": "conv_1"})
    await api.tool("create-note", agent | {"note": "secret words"})
    await api.tool("update-contact", agent | {"email": "zq@example.com", "first_name": "Marguerite"})
    await api.tool("update-contact", agent | {"first_name": "Zebediah"})
    await api.tool("send-sms", agent | {"message": "text to Margaret"})
    for direction, number in (("inbound", 1), ("outbound", 2)):
        assert (await api.ingest(call(direction, number))).status_code == 201
    await api.tool("transfer", {"reason": "a wish for Margaret", "conversation_id": "conv_unknown"})
    await api.tool("create-note", agent | {"note": "secret words too", "conversation_id": "conv_unknown"})
    body = {"contactId": contact_id, "note": "secret words"}
    assert (await api.post("/api/contact-notes", body, api.superadmin_token)).status_code == 201
    return contact_id


async def everything(api: Api) -> str:
    """Return all rows of all tables as one text."""

    def unit() -> list[Any]:
        return [list(model.select().dicts()) for model in MODELS]

    return json.dumps(await api.read(unit), ensure_ascii=False)


async def traces(api: Api) -> list[str]:
    text = await everything(api)
    return [trace for trace in TRACES if trace in text]


async def delete(api: Api, contact_id: str, token: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token or api.superadmin_token}"}
    return await api.http.delete(f"/api/contacts/{contact_id}", headers=headers)


@pytest.mark.each_engine
async def test_nothing_of_the_person_is_left_anywhere(api: Api) -> None:
    """No row of any table and no object holds a word of them, and the answer says what went."""
    contact_id = await live(api)
    before = await traces(api)
    response = await delete(api, contact_id)

    assert sorted(before) == sorted(TRACES)
    assert response.status_code == 200, response.text
    assert response.json()["erased"] == {
        "calls": 2,
        "recordings": 2,
        "notes": 3,
        "messages": 1,
        "transferRequests": 2,
        "emails": 1,
        "callContexts": 1,
        "events": 17,
    }
    assert await traces(api) == []
    assert api.objects() == []
    assert await api.read(lambda: list(ToolInvocation.select())) == []


@ONE_ENGINE
async def test_no_file_of_the_embedded_database_holds_a_word_of_the_person(api: Api) -> None:
    """Byte by byte, while the server runs: neither the database nor its log."""
    contact_id = await live(api)
    before = raw_traces(api)
    response = await delete(api, contact_id)

    assert response.status_code == 200
    assert sorted(before) == sorted(TRACES)
    assert raw_traces(api) == []


@ONE_ENGINE
async def test_an_erasure_does_not_wait_for_readers_and_the_files_are_clean_once_they_are_done(api: Api) -> None:
    """Somebody who reads an older state needs the log; then it goes without being asked for again."""
    contact_id = await live(api)
    reader = sqlite3.connect(api.data_dir / "relay.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM contact").fetchone()
    response = await delete(api, contact_id)
    held = raw_traces(api)
    note = await api.tool("create-note", {"phone_number": api.demo.contact_phone, "note": "Somebody else's."})
    reader.execute("COMMIT")
    reader.close()
    await until(lambda: not raw_traces(api), "the files are clean")

    assert response.status_code == 200
    assert held
    assert note.json()["success"] is True


def raw_traces(api: Api) -> list[str]:
    files = [path.read_bytes() for path in api.data_dir.glob("relay.db*") if not path.name.endswith("-shm")]
    return [trace for trace in TRACES if any(trace.encode() in file for file in files)]


@pytest.mark.each_engine
async def test_others_keep_everything(api: Api) -> None:
    """Another contact's call, note, text and wish are untouched."""
    contact_id = await live(api)
    other = {"phone_number": api.demo.contact_phone, "conversation_id": "conv_9"}
    await api.tool("create-note", other | {"note": "Somebody else's."})
    await api.tool("send-sms", other | {"message": "Somebody else's text."})
    await api.tool("transfer", {"reason": "Somebody else's wish", "conversation_id": "conv_9"})
    await api.ingest(call("inbound", 9, fromNumber=api.demo.contact_phone, callerName="Alex"))
    (kept,) = (await get(api, "/api/contacts", search=api.demo.contact_phone)).json()["data"]["contacts"]
    timeline = f"/api/contacts/{kept['_id']}/timeline"
    before = (await get(api, timeline)).json()
    events = [event for event in await api.events() if event["data"].get("contactId") == kept["_id"]]
    await delete(api, contact_id)

    assert (await get(api, timeline)).json() == before
    assert len(before["timeline"]) == 4
    assert [event for event in await api.events() if event in events] == events
    assert len(api.objects()) == 1


async def test_afterwards_the_person_is_not_there(api: Api) -> None:
    """Not to be read, not to be listed, not to be erased again."""
    contact_id = await live(api)
    await delete(api, contact_id)
    answers = [
        await get(api, f"/api/contacts/{contact_id}"),
        await get(api, f"/api/contacts/{contact_id}/timeline"),
        await get(api, "/api/contact-notes", contactId=contact_id),
        await delete(api, contact_id),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert (await get(api, "/api/contacts")).json()["data"]["total"] == 1


@pytest.mark.each_engine
async def test_a_call_keeps_its_place_and_its_figures(api: Api) -> None:
    """That there was a call of that length is nobody's secret; whose it was is gone."""
    contact_id = await live(api)
    before = (await get(api, "/api/calls/statistics")).json()
    await delete(api, contact_id)
    body = (await get(api, "/api/calls/history", externalCallId="vendor-1")).json()
    (shown,) = body["calls"]

    assert (shown["contactId"], shown["conversationId"], shown["callerName"], shown["summary"]) == (None,) * 4
    assert (shown["from"], shown["to"], shown["hasRecording"]) == ("", OURS, False)
    assert (await get(api, "/api/calls/statistics")).json() == before
    assert (await get(api, f"/api/calls/{shown['_id']}")).json()["call"]["transcript"] is None
    assert (await get(api, f"/api/calls/{shown['_id']}/recording")).status_code == 404


async def test_a_call_that_is_sent_again_does_not_come_back(api: Api) -> None:
    """It is known by its id, and nothing is said about whether it is the same."""
    contact_id = await live(api)
    known = (await get(api, "/api/calls/history", externalCallId="vendor-1")).json()["calls"][0]["_id"]
    await delete(api, contact_id)
    head = await api.head()
    same, other = await api.ingest(call("inbound", 1)), await api.ingest(call("inbound", 1, duration=99))

    assert (same.status_code, other.status_code) == (200, 200)
    assert same.json() == other.json() == {"success": True, "deduplicated": True, "callId": known}
    assert await traces(api) == []
    assert (api.objects(), await api.head()) == ([], head)


@pytest.mark.each_engine
async def test_the_same_person_may_call_again(api: Api) -> None:
    """A new call makes a new contact, with nothing from before."""
    contact_id = await live(api)
    await delete(api, contact_id)
    made = (await api.ingest(call("inbound", 3))).json()
    timeline = (await get(api, f"/api/contacts/{made['contactId']}/timeline")).json()["timeline"]

    assert made["contactId"] != contact_id
    assert [entry["kind"] for entry in timeline] == ["call"]


@pytest.mark.each_engine
async def test_events_keep_their_places_and_say_nothing(api: Api) -> None:
    """The sequence has no gap, every event is as published, and listeners are told whom to forget."""
    contact_id = await live(api)
    before = await api.head()
    await delete(api, contact_id)
    stored = await api.read(lambda: outbox.after(api.organization_id, 0, 1000))
    for event in stored:
        data = json.loads(event.data)
        frame = {"type": "event", "seq": event.sequence, "event": event.name, "at": event.at, "data": data}
        published_events.check(json.dumps(frame))

    assert [event.sequence for event in stored] == list(range(1, before + 2))
    assert {event.name for event in stored[:-1]} == {EventName.ERASED}
    assert (stored[-1].name, json.loads(stored[-1].data)) == ("contact_erased", {"contactId": contact_id})


async def test_who_erased_is_written_down(api: Api) -> None:
    """The entry names the contact's id and nothing else of it."""
    contact_id = await live(api)
    user_id, token = await user_of(api, Role.ADMIN)
    response = await delete(api, contact_id, token)
    (entry,) = await api.read(lambda: list(AuditEntry.select().where(AuditEntry.action == "contact.erased")))

    assert response.status_code == 200
    assert (entry.organization_id, entry.user_id, entry.subject) == (api.organization_id, user_id, contact_id)


async def test_an_agent_may_not_erase(api: Api) -> None:
    """It takes an admin, and nothing happens without one."""
    contact_id = await live(api)
    _, token = await user_of(api, Role.AGENT)
    response = await delete(api, contact_id, token)

    assert (response.status_code, response.json()["success"]) == (401, False)
    assert sorted(await traces(api)) == sorted(TRACES)
    assert len(api.objects()) == 2


class Failing:
    """A store whose removals fail from the n-th on."""

    def __init__(self, store: Any, after: int) -> None:
        self._store = store
        self._left = after

    async def remove(self, key: str) -> None:
        if self._left == 0:
            raise StorageUnavailable("injected")
        self._left -= 1
        await self._store.remove(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_store_that_fails_leaves_an_erasure_that_can_be_finished(api: Api, after: int) -> None:
    """The person is out of reach at once; asking again finishes what was begun, and only then it is over."""
    contact_id = await live(api)
    working = api.relay.store
    object.__setattr__(api.relay, "store", Failing(working, after))
    failed = await delete(api, contact_id)
    object.__setattr__(api.relay, "store", working)
    unreachable = await get(api, f"/api/contacts/{contact_id}")
    left = len(api.objects())
    again = await delete(api, contact_id)

    assert (failed.status_code, unreachable.status_code, again.status_code) == (500, 404, 200)
    assert left == 2 - after
    assert (await traces(api), api.objects()) == ([], [])
    assert (await delete(api, contact_id)).status_code == 404


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_crash_between_any_two_steps_is_made_good_by_asking_again(
    api: Api, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """With a row a step, killed after each: nothing is lost that the next try does not find."""
    contact_id = await live(api)
    monkeypatch.setattr("actions.erase_contact._ROWS", 1)
    write, done = api.relay.database.write, 0

    async def dying(unit: Any, *, of: str | None = None) -> Any:
        nonlocal done
        if done == steps:
            raise StorageUnavailable("killed")
        done += 1
        return await write(unit, of=of)

    monkeypatch.setattr(api.relay.database, "write", dying)
    with pytest.raises(StorageUnavailable):
        await erase_contact(api.relay, api.organization_id, contact_id, Actor())
    monkeypatch.setattr(api.relay.database, "write", write)
    await erase_contact(api.relay, api.organization_id, contact_id, Actor())

    assert (await traces(api), api.objects()) == ([], [])
    assert await api.read(lambda: Contact.select().where(Contact.id == contact_id).count()) == 0
    assert await api.read(lambda: Call.select().where(Call.contact == contact_id).count()) == 0
    assert await api.read(lambda: TransferRequest.select().count()) == 0
    assert await api.read(lambda: Event.select().where(Event.name == "contact_erased").count()) == 1


async def test_audio_that_waits_for_a_call_with_the_person_goes_too(api: Api) -> None:
    """A note ties it to them; what waits for somebody else stays."""
    contact_id = await contact_of(api, NUMBER, NAME)
    await api.tool("create-note", {"phone_number": NUMBER, "note": "secret words", "conversation_id": "conv_9"})
    for conversation_id in ("conv_9", "conv_of_somebody_else"):
        await attach_recording(api.relay, api.organization_id, conversation_id, _audio())
    await erase_contact(api.relay, api.organization_id, contact_id, Actor())
    waiting = await api.read(lambda: [held.elevenlabs_conversation_id for held in HeldRecording.select()])

    assert waiting == ["conv_of_somebody_else"]
    assert len(api.objects()) == 1


async def _audio() -> AsyncIterator[bytes]:
    yield mp3()
