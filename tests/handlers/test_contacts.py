"""Reading contacts: the list, one of them, their notes and their story."""

from typing import Any

import pytest

from domain.principals import Role
from persistence.models import Contact
from tests.support.api import Api
from tests.support.audio import mp3_base64
from tests.support.reading import (
    OURS,
    THEIRS,
    call_row,
    contact_of,
    conversation_row,
    get,
    message_row,
    note_row,
    transfer_row,
    user_of,
)

pytestmark = pytest.mark.any_engine

ABSENT = "0" * 24
NOTES = "/api/contact-notes"


def at(second: int) -> str:
    return f"2026-05-15T09:00:{second:02d}.000Z"


async def names(api: Api, **params: Any) -> tuple[list[str], int]:
    data = (await get(api, "/api/contacts", **params)).json()["data"]
    return [contact["name"] for contact in data["contacts"]], data["total"]


@pytest.fixture
async def crowd(api: Api) -> list[str]:
    """Four contacts beside the demo's; return all names, newest first."""
    people = [("+14165550171", "Émile Zola"), ("+14165550172", "100% Sure"), ("+493012345", "Ann"), (THEIRS, "Sam")]
    for number, name in people:
        await contact_of(api, number, name)
    return ["Sam", "Ann", "100% Sure", "Émile Zola", "Alex Example"]


@pytest.mark.each_engine
async def test_contacts_come_newest_first_in_pages(api: Api, crowd: list[str]) -> None:
    """Every page is a slice of the same list, and says how many there are altogether."""
    pages = [await names(api, page=page, size=2) for page in (1, 2, 3, 4)]

    assert await names(api) == (crowd, 5)
    assert pages == [(crowd[:2], 5), (crowd[2:4], 5), (crowd[4:], 5), ([], 5)]


SEARCHES: list[tuple[str, list[str]]] = [
    ("ann", ["Ann"]),
    ("A", ["Sam", "Ann", "Émile Zola", "Alex Example"]),
    ("ÉMILE", ["Émile Zola"]),
    ("e z", ["Émile Zola"]),
    ("100%", ["100% Sure"]),
    ("%", ["100% Sure"]),
    ("_", []),
    ("\\", []),
    ("5550171", ["Émile Zola"]),
    ("(416) 555-0172", ["100% Sure"]),
    ("+49", ["Ann"]),
    ("+49 30 123", ["Ann"]),
    ("nobody", []),
    ("  ", ["Sam", "Ann", "100% Sure", "Émile Zola", "Alex Example"]),
    ("", ["Sam", "Ann", "100% Sure", "Émile Zola", "Alex Example"]),
]


@pytest.mark.usefixtures("crowd")
@pytest.mark.each_engine
async def test_a_search_looks_into_names_and_numbers(api: Api, subtests: pytest.Subtests) -> None:
    """In any case and script, with nothing in it meaning anything special, alike on both engines."""
    for search, expected in SEARCHES:
        with subtests.test(search=repr(search)[:60]):
            assert await names(api, search=search) == (expected, len(expected))


@pytest.mark.each_engine
async def test_a_name_that_comes_later_is_found(api: Api) -> None:
    """A call without a name makes a contact; the next one names it."""
    call = {"direction": "inbound", "fromNumber": THEIRS, "toNumber": OURS, "duration": 0, "status": "busy"}
    await api.ingest(call)
    unnamed = await names(api, search="unknown")
    await api.ingest(call | {"callerName": "Noa Späth"})

    assert unnamed == (["Unknown Caller"], 1)
    assert await names(api, search="SPÄTH") == (["Noa Späth"], 1)
    assert await names(api, search="unknown") == ([], 0)


async def test_one_contact_is_read(api: Api) -> None:
    """With its number, and its name in one piece and in two."""
    contact_id = await contact_of(api, name="Ana Maria Silva")
    response = await get(api, f"/api/contacts/{contact_id}")
    contact = response.json()["data"]

    assert response.status_code == 200
    assert (contact["_id"], contact["organizationId"], contact["phoneNumber"]) == (
        contact_id,
        api.organization_id,
        [{"value": THEIRS, "isPrimary": True}],
    )
    assert (contact["name"], contact["firstName"], contact["lastName"]) == ("Ana Maria Silva", "Ana", "Maria Silva")


PATHS_OF_A_CONTACT: list[str] = ["/api/contacts/{}", "/api/contacts/{}/timeline", NOTES + "?contactId={}"]


async def test_a_contact_that_is_not_there_is_404(api: Api, subtests: pytest.Subtests) -> None:
    """In the envelope of records, for everything that hangs on a contact."""
    for path in PATHS_OF_A_CONTACT:
        with subtests.test(path=repr(path)[:60]):
            for contact_id, status in ((ABSENT, 404), ("nonsense", 400)):
                response = await get(api, path.format(contact_id))

                assert (response.status_code, response.json()["success"]) == (status, False)


# Notes


async def write(api: Api, token: str, body: dict[str, Any]) -> Any:
    return await api.post(NOTES, body, token)


async def test_a_note_written_by_hand_has_its_author_and_is_announced(api: Api) -> None:
    """The author is whose token it was; listeners get the same event as for an agent's note."""
    contact_id = await contact_of(api)
    user_id, token = await user_of(api, Role.AGENT)
    attachment = {"key": "orgs/1/notes/a.pdf", "name": "a.pdf", "size": 12}
    body = {
        "contactId": contact_id,
        "note": "  Call in the afternoon. ",
        "mentions": ["u1"],
        "attachments": [attachment],
    }
    response = await write(api, token, body)
    note = response.json()["data"]
    (event,) = await api.events()

    assert response.status_code == 201
    assert (note["note"], note["type"], note["source"]) == ("Call in the afternoon.", "note", None)
    assert note["userId"] == {
        "_id": user_id,
        "fullName": "Robin Example",
        "email": f"agent-{api.organization_id}@example.com",
    }
    assert (note["mentions"], note["attachments"]) == (["u1"], [attachment])
    assert (event["name"], event["data"]["noteId"], event["data"]["note"]) == (
        "note_created",
        note["_id"],
        "Call in the afternoon.",
    )
    assert "source" not in event["data"]
    assert (await get(api, NOTES, contactId=contact_id)).json() == {
        "success": True,
        "data": [note],
        "pagination": {"total": 1, "limit": 50, "offset": 0, "hasMore": False},
        "next": None,
    }


BAD_NOTES: list[tuple[dict[str, Any], int]] = [
    ({"contactId": ABSENT}, 404),
    ({"contactId": "x"}, 400),
    ({"note": " \n "}, 400),
    ({"note": "x" * 20_001}, 400),
    ({"note": None}, 400),
    ({"mentions": [1]}, 400),
    ({"attachments": [{"name": "no key"}]}, 400),
]


async def test_a_note_that_cannot_be_written_leaves_nothing(api: Api, subtests: pytest.Subtests) -> None:
    """Neither a row nor an event."""
    contact_id = await contact_of(api)
    for change, status in BAD_NOTES:
        with subtests.test(change=repr(change)[:60]):
            response = await write(api, api.superadmin_token, {"contactId": contact_id, "note": "Good."} | change)

            assert (response.status_code, response.json()["success"]) == (status, False)
            assert (await get(api, NOTES, contactId=contact_id)).json()["data"] == await api.events() == []


async def test_an_agents_note_says_which_tool_took_it(api: Api) -> None:
    """It has no author, but a source."""
    await api.tool(
        "create-note", {"phone_number": api.demo.contact_phone, "note": "Asked.", "conversation_id": "conv_1"}
    )
    (contact,) = await api.read(lambda: list(Contact.select()))
    (note,) = (await get(api, NOTES, contactId=contact.id)).json()["data"]

    assert (note["type"], note["userId"]) == ("ai_summary", None)
    assert note["source"] == {"tool": "create-note", "conversationId": "conv_1"}


# The story


async def walk(api: Api, path: str, entries: str, limit: int, **params: Any) -> list[dict[str, Any]]:
    """Read a list to its end, page by page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(50):
        body = (await get(api, path, limit=limit, **params, **cursor)).json()
        assert len(body[entries]) <= limit
        found += body[entries]
        if body["next"] is None:
            return found
        cursor = {"cursor": body["next"]}
    raise AssertionError("the list has no end")


async def story(api: Api) -> tuple[str, list[tuple[str, str]]]:
    """Write a story of every kind, with moments that are shared; return the contact, and kind and id, newest first."""
    contact_id = await contact_of(api)
    organization_id = api.organization_id

    def unit() -> list[tuple[str, str, str]]:
        conversation = conversation_row(organization_id, contact_id)
        rows: list[tuple[str, str, str]] = []
        for second in range(4):
            moment = at(second // 2)
            rows += [
                ("note", moment, note_row(organization_id, contact_id, created_at=moment).id),
                ("call", moment, call_row(organization_id, contact_id, started_at=moment).id),
                ("message", moment, message_row(organization_id, contact_id, conversation.id, created_at=moment).id),
                ("transfer_request", moment, transfer_row(organization_id, contact_id, requested_at=moment).id),
            ]
        return rows

    rows = await api.relay.database.write(unit)
    newest_first = sorted(rows, key=lambda row: (row[1], row[2]), reverse=True)
    return contact_id, [(kind, row_id) for kind, _, row_id in newest_first]


PAGE_SIZES: list[int] = [1, 3, 5, 16, 200]


@pytest.mark.each_engine
async def test_a_story_is_told_whole_and_in_order_whatever_the_page(api: Api, subtests: pytest.Subtests) -> None:
    """Notes, calls, messages and transfer requests, each once, newest first, also where moments are shared."""
    contact_id, expected = await story(api)
    for limit in PAGE_SIZES:
        with subtests.test(limit=repr(limit)[:60]):
            told = await walk(api, f"/api/contacts/{contact_id}/timeline", "timeline", limit)

            assert [(entry["kind"], entry["id"]) for entry in told] == expected
            for entry in told:
                name = "transferRequest" if entry["kind"] == "transfer_request" else entry["kind"]
                assert entry[name]["_id"] == entry["id"]


async def test_a_last_page_that_is_full_promises_no_other(api: Api) -> None:
    """Whoever follows the cursor asks for no page that is empty."""
    contact_id, expected = await story(api)
    path = f"/api/contacts/{contact_id}/timeline"
    nexts = [(await get(api, path, limit=len(expected) - short)).json()["next"] for short in (1, 0)]

    assert [following is None for following in nexts] == [False, True]


@pytest.mark.each_engine
async def test_what_happens_while_a_story_is_read_shifts_nothing(api: Api) -> None:
    """The next page goes on where the last one ended."""
    contact_id, expected = await story(api)
    path = f"/api/contacts/{contact_id}/timeline"
    first = (await get(api, path, limit=4)).json()
    await api.relay.database.write(lambda: note_row(api.organization_id, contact_id))
    second = (await get(api, path, limit=4, cursor=first["next"])).json()

    assert [entry["id"] for entry in second["timeline"]] == [row_id for _, row_id in expected[4:8]]


async def test_a_whole_call_is_one_story(api: Api) -> None:
    """What the agent did during a call and the call itself stand together."""
    number = api.demo.contact_phone
    await api.tool("create-note", {"phone_number": number, "note": "Asked.", "conversation_id": "conv_1"})
    await api.tool("send-sms", {"phone_number": number, "message": "Here is the link.", "conversation_id": "conv_1"})
    await api.tool("transfer", {"reason": "Supervisor", "conversation_id": "conv_1"})
    made = await api.ingest(
        {
            "direction": "inbound",
            "fromNumber": number,
            "toNumber": OURS,
            "duration": 5,
            "status": "completed",
            "transcript": [{"role": "agent", "message": "Hi."}],
            "summary": "Greeted.",
            "recording": mp3_base64(),
            "externalCallId": "conv_1",
        }
    )
    timeline = (await get(api, f"/api/contacts/{made.json()['contactId']}/timeline")).json()["timeline"]
    told = {entry["kind"]: entry for entry in timeline}

    assert [entry["kind"] for entry in timeline] == ["call", "transfer_request", "message", "note"]
    assert told["call"]["call"]["hasRecording"] is True
    assert told["transfer_request"]["transferRequest"]["callId"] == made.json()["callId"]
    assert told["message"]["message"]["text"] == "Here is the link."


BAD_CURSORS: list[str] = ["x", "2026-05-15T09:00:00.000Z", f"{at(0)}_{'g' * 24}", f"{at(0)}_{'0' * 25}"]


async def test_a_cursor_that_is_none_of_ours_is_400(api: Api, subtests: pytest.Subtests) -> None:
    """Whatever list it is shown to."""
    contact_id = await contact_of(api)
    for cursor in BAD_CURSORS:
        with subtests.test(cursor=repr(cursor)[:60]):
            for path in (f"/api/contacts/{contact_id}/timeline", f"{NOTES}?contactId={contact_id}"):
                response = await api.http.get(
                    path + ("&" if "?" in path else "?") + f"cursor={cursor}",
                    headers={"Authorization": f"Bearer {api.superadmin_token}"},
                )

                assert response.status_code == 400
