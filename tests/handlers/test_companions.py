"""Where the vendor's pages are known, reading and writing by people has their shapes; what is ours stays beside it."""

from typing import Any

import httpx
import pytest

from actions.edit_note import MAX_EMOJIS
from domain.principals import Role
from tests.handlers.test_erasure import call
from tests.support.api import Api
from tests.support.reading import contact_of, get, user_of

NOTES, NUMBER = "/api/contact-notes", "+14165550123"


async def send(api: Api, method: str, path: str, body: Any, token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or api.superadmin_token}"}
    return await api.http.request(method, path, json=body, headers=headers)


async def note_of(api: Api, contact_id: str, **body: Any) -> dict[str, Any]:
    response = await send(api, "POST", NOTES, {"contactId": contact_id} | body)
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def told(api: Api) -> list[dict[str, Any]]:
    return [event["data"] for event in await api.events() if event["name"] == "note_updated"]


# Contacts


@pytest.mark.parametrize("number", [NUMBER, "(416) 555-0123", "4165550123"])
async def test_contact_is_found_by_its_number_however_it_is_written(api: Api, number: str) -> None:
    """As the page has it; the same contact as by its id."""
    contact_id = await contact_of(api, NUMBER, "Jane Doe")
    found = await send(api, "POST", "/api/contacts/phoneNumber", {"phoneNumber": number})
    read = (await get(api, f"/api/contacts/{contact_id}")).json()["data"]

    assert found.json()["data"] == read
    assert (read["phoneNumber"], read["secondaryPhoneNumber"]) == ([{"value": NUMBER, "isPrimary": True}], [])


@pytest.mark.parametrize("number", ["+14165550999", "12", "nobody"])
async def test_number_that_nobody_has_is_not_found(api: Api, number: str) -> None:
    """404, whether it can be a number or not."""
    assert (await send(api, "POST", "/api/contacts/phoneNumber", {"phoneNumber": number})).status_code == 404


# Calls


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_call_has_the_fields_of_the_page_beside_ours(api: Api, direction: str) -> None:
    """In the list and by itself; a call that did not take place was never answered."""
    await api.ingest(call(direction, 1, callStartTime="2026-05-15T09:10:00.000Z"))
    missed = call(direction, 2, status="no-answer", duration=0)
    await api.ingest({name: value for name, value in missed.items() if name != "recording"})
    unanswered, answered = (await get(api, "/api/calls/history")).json()["calls"]
    if unanswered["status"] != "no-answer":
        unanswered, answered = answered, unanswered
    one = (await get(api, f"/api/calls/{answered['_id']}")).json()["call"]

    for shown in (answered, one):
        assert (shown["startTime"], shown["answerTime"], shown["endTime"]) == (
            shown["startedAt"],
            shown["startedAt"],
            shown["endedAt"],
        )
        assert (shown["provider"], shown["providerCallId"]) == ("ingest", "vendor-1")
        assert shown["providerPhoneNumber"] == "+12362320246"
        assert shown["recordings"] == [{"callId": shown["_id"]}]
    assert (unanswered["answerTime"], unanswered["recordings"]) == (None, [])


# Notes


async def test_notes_are_paged_by_limit_and_offset_as_texts(api: Api) -> None:
    """Every note once, newest first, with the total and whether there are more."""
    contact_id = await contact_of(api, NUMBER)
    made = [(await note_of(api, contact_id, note=f"Note {n}"))["_id"] for n in range(5)][::-1]
    pages = [
        (await get(api, NOTES, contactId=contact_id, limit="2", offset=str(offset))).json() for offset in (0, 2, 4, 6)
    ]

    assert [note["_id"] for page in pages for note in page["data"]] == made
    assert [page["pagination"] for page in pages] == [
        {"total": 5, "limit": 2, "offset": 0, "hasMore": True},
        {"total": 5, "limit": 2, "offset": 2, "hasMore": True},
        {"total": 5, "limit": 2, "offset": 4, "hasMore": False},
        {"total": 5, "limit": 2, "offset": 6, "hasMore": False},
    ]


async def test_note_needs_only_its_contact(api: Api) -> None:
    """A file may be attached without a word."""
    attached = {"key": "orgs/1/w2.pdf", "name": "w2.pdf"}
    note = await note_of(api, await contact_of(api, NUMBER), attachments=[attached])

    assert (note["note"], note["attachments"], note["isEdited"]) == ("", [attached], False)


async def test_edited_note_says_so_and_keeps_what_was_not_given(api: Api) -> None:
    """Text, mentions and attachments each by themselves; listeners are shown the note as it is then."""
    contact_id = await contact_of(api, NUMBER)
    note = await note_of(api, contact_id, note="Before.", mentions=["a"], attachments=[{"key": "k", "name": "n"}])
    first = await send(api, "PATCH", f"{NOTES}/{note['_id']}", {"note": " After. "})
    second = await send(api, "PATCH", f"{NOTES}/{note['_id']}", {"mentions": [], "attachments": []})
    (listed,) = (await get(api, NOTES, contactId=contact_id)).json()["data"]

    assert first.json()["data"] == note | {"note": "After.", "isEdited": True}
    assert (
        second.json()["data"]
        == listed
        == note
        | {
            "note": "After.",
            "isEdited": True,
            "mentions": [],
            "attachments": [],
        }
    )
    assert [(data["noteId"], data["note"], data["isEdited"]) for data in await told(api)] == [
        (note["_id"], "After.", True)
    ] * 2


async def test_reaction_is_a_toggle_of_each_user(api: Api) -> None:
    """Twice is none; two people count as two."""
    note = await note_of(api, await contact_of(api, NUMBER), note="Good news.")
    first = (await get(api, "/api/auth/verify-token")).json()["user"]["id"]
    second, token = await user_of(api, Role.AGENT)
    path = f"{NOTES}/{note['_id']}/reaction"
    shown = []
    for emoji, whose in (("👍", None), ("👍", token), ("🎉", token), ("👍", None), ("👍", token)):
        answer = await send(api, "POST", path, {"emoji": emoji}, whose)
        shown.append(answer.json()["data"]["reactions"])

    assert shown == [
        [{"emoji": "👍", "users": [first], "count": 1}],
        [{"emoji": "👍", "users": [first, second], "count": 2}],
        [{"emoji": "👍", "users": [first, second], "count": 2}, {"emoji": "🎉", "users": [second], "count": 1}],
        [{"emoji": "👍", "users": [second], "count": 1}, {"emoji": "🎉", "users": [second], "count": 1}],
        [{"emoji": "🎉", "users": [second], "count": 1}],
    ]
    assert not answer.json()["data"]["isEdited"]
    assert [data["reactions"] for data in await told(api)] == shown


async def test_note_has_a_bounded_number_of_reactions(api: Api) -> None:
    """One more kind is refused, another of a kind is not."""
    note = await note_of(api, await contact_of(api, NUMBER), note="Good news.")
    path = f"{NOTES}/{note['_id']}/reaction"
    for number in range(MAX_EMOJIS):
        assert (await send(api, "POST", path, {"emoji": chr(0x1F600 + number)})).status_code == 200
    _, token = await user_of(api, Role.AGENT)
    answers = [await send(api, "POST", path, {"emoji": one}, token) for one in ("🎉", chr(0x1F600))]

    assert [answer.status_code for answer in answers] == [400, 200]


@pytest.mark.parametrize(
    ("method", "path", "body"), [("PATCH", "", {"note": "x"}), ("POST", "/reaction", {"emoji": "👍"})]
)
async def test_note_that_is_not_there_is_not_found(api: Api, method: str, path: str, body: Any) -> None:
    """404 in the envelope of records."""
    response = await send(api, method, f"{NOTES}/{'0' * 24}{path}", body)

    assert (response.status_code, response.json()["success"]) == (404, False)


# Accounts


async def test_refresh_token_in_the_body_is_exchanged(api: Api) -> None:
    """As the page has it; another user's, or what is no token, is refused."""
    password = api.demo.superadmin_password.get_secret_value()
    login = {"email": api.demo.superadmin_email, "password": password}
    signed_in = (await send(api, "POST", "/api/auth/login", login)).json()
    _, others = await user_of(api, Role.AGENT)
    answers = [
        await send(api, "POST", "/api/auth/refresh", {"refreshToken": token}, signed_in["token"])
        for token in (signed_in["refreshToken"], others, "x")
    ]
    verified = await get(api, "/api/auth/verify-token", answers[0].json()["refreshToken"])

    assert [answer.status_code for answer in answers] == [200, 401, 401]
    assert (verified.status_code, verified.json()["message"]) == (200, "Token is good")


# Conversations


async def threads(api: Api, contact_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(api, "/api/conversation/all", contactId=contact_id)).json()[
        "conversations"
    ]
    return found


async def test_conversations_of_every_channel_are_listed(api: Api) -> None:
    """The one last used first; the body of POST still chooses one channel."""
    contact_id = (await api.ingest(call("inbound", 1, callStartTime="2026-05-15T09:10:00.000Z"))).json()["contactId"]
    await api.tool("send-sms", {"phone_number": NUMBER, "message": "Here is the link."})
    listed = await threads(api, contact_id)
    chosen = await send(api, "POST", "/api/conversation/all", {"contactId": contact_id, "channelType": "voice"})

    assert [one["channelType"] for one in listed] == ["sms", "voice"]
    assert chosen.json()["conversations"] == listed[1:]
    assert {(one["isAutopilot"], one["isResolved"]) for one in listed} == {(False, False)}
    assert (await get(api, "/api/conversation/all", contactId="0" * 24)).status_code == 404


async def test_conversation_is_resolved_and_opened_again(api: Api) -> None:
    """Resolving what is resolved keeps its time and who did it."""
    contact_id = (await api.ingest(call("inbound", 1))).json()["contactId"]
    (thread,) = await threads(api, contact_id)
    user_id, token = await user_of(api, Role.AGENT)
    path = f"/api/conversation/{thread['_id']}/resolve"
    first = (await send(api, "PUT", path, {"isResolved": True}, token)).json()
    again = (await send(api, "PUT", path, {"isResolved": True})).json()
    (resolved,) = await threads(api, contact_id)
    opened = (await send(api, "PUT", path, {"isResolved": False})).json()
    (after,) = await threads(api, contact_id)

    assert first == again
    assert first == {
        "message": "Conversation resolved",
        "data": {"_id": thread["_id"], "isResolved": True, "resolvedAt": resolved["resolvedAt"]},
    }
    assert (resolved["isResolved"], resolved["resolvedBy"]) == (True, user_id)
    assert opened == {
        "message": "Conversation reopened",
        "data": {"_id": thread["_id"], "isResolved": False, "resolvedAt": None},
    }
    assert after == thread
    assert (await send(api, "PUT", f"/api/conversation/{'0' * 24}/resolve", {"isResolved": True})).status_code == 404
