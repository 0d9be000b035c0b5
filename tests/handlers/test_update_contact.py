"""The agent corrects a contact in the middle of a call: what is set, what is kept, and what it hears when it fails."""

import asyncio
from typing import Any

import pytest

from persistence.models import Contact, ContactEmail, ToolInvocation
from tests.handlers.test_erasure import delete
from tests.handlers.test_transfers import age_invocations
from tests.support.api import Api
from tests.support.reading import contact_of, get

TOOL, NUMBER = "update-contact", "+14165550123"
FULL = {"phone_number": NUMBER, "first_name": "Alex", "last_name": "Morgan", "email": "alex.morgan@example.com"}


async def updated(api: Api, **body: Any) -> list[str]:
    answer = (await api.tool(TOOL, {"phone_number": NUMBER} | body)).json()
    assert answer.pop("updated_fields", None) is not None, answer
    return list((await api.tool(TOOL, {"phone_number": NUMBER} | body)).json()["updated_fields"])


async def shown(api: Api, contact_id: str) -> dict[str, Any]:
    data: dict[str, Any] = (await get(api, f"/api/contacts/{contact_id}")).json()["data"]
    return data


async def told(api: Api) -> list[dict[str, Any]]:
    return [event["data"] for event in await api.events() if event["name"] == "contact_updated"]


async def test_contact_gets_its_names_and_its_first_email(api: Api) -> None:
    """The page's answer, the contact as it is read, and one event that says what was there before."""
    contact_id = await contact_of(api, NUMBER, "Aleks Morgen")
    answer = await api.tool(TOOL, FULL | {"conversation_id": "conv_1"})
    contact = await shown(api, contact_id)

    assert answer.json() == {
        "success": True,
        "message": "Contact updated",
        "updated_fields": ["firstName", "lastName", "email"],
    }
    assert (contact["firstName"], contact["lastName"], contact["name"]) == ("Alex", "Morgan", "Alex Morgan")
    assert contact["email"] == FULL["email"]
    assert await told(api) == [
        {
            "contactId": contact_id,
            "updatedFields": ["firstName", "lastName", "email"],
            "name": "Alex Morgan",
            "firstName": "Alex",
            "lastName": "Morgan",
            "emails": [{"value": FULL["email"], "isPrimary": True}],
            "previous": {"firstName": "Aleks", "lastName": "Morgen"},
            "source": {"tool": TOOL, "conversationId": "conv_1"},
        }
    ]


async def test_emails_are_only_added_and_the_first_stays_primary(api: Api) -> None:
    """The same address again, in whatever case, is not added twice."""
    contact_id = await contact_of(api, NUMBER)
    for address in ("one@example.com", "Two@example.com", "ONE@example.com", "two@example.com"):
        assert (await api.tool(TOOL, {"phone_number": NUMBER, "email": address})).json()["updated_fields"] == ["email"]
    contact = await shown(api, contact_id)

    assert contact["email"] == "one@example.com"
    assert contact["emails"] == [
        {"value": "one@example.com", "isPrimary": True},
        {"value": "Two@example.com", "isPrimary": False},
    ]
    assert len(await told(api)) == 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"first_name": "Zoë"}, "Zoë van der Berg"),
        ({"last_name": "Quux"}, "Ana Quux"),
        ({"first_name": " Mary Ann ", "last_name": "Lee"}, "Mary Ann Lee"),
        ({"first_name": "Mary Ann", "last_name": " "}, "Mary Ann van der Berg"),
    ],
)
async def test_name_that_is_not_given_stays(api: Api, change: dict[str, str], name: str) -> None:
    """And what was told apart once stays apart."""
    contact_id = await contact_of(api, NUMBER, "Ana van der Berg")
    given = await updated(api, **change)
    contact = await shown(api, contact_id)
    wanted = {"first_name": "firstName", "last_name": "lastName"}

    assert given == [wanted[one] for one in change if change[one].strip()]
    assert (contact["name"], f"{contact['firstName']} {contact['lastName']}") == (name, name)
    if "first_name" in change:
        assert contact["firstName"] == change["first_name"].strip()
    found = (await get(api, "/api/contacts", search=name.split()[-1])).json()["data"]["total"]
    assert found == 1


async def test_number_never_changes(api: Api) -> None:
    """Whatever else the agent sends."""
    contact_id = await contact_of(api, NUMBER)
    await api.tool(TOOL, FULL | {"new_phone_number": "+14165550199", "phoneNumber": "+14165550199"})

    assert (await api.read(lambda: Contact.get_by_id(contact_id))).phone_number == NUMBER


async def unknown(api: Api) -> str:
    """Have a call of somebody whose name is not known; return the contact."""
    call = {"direction": "inbound", "fromNumber": NUMBER, "toNumber": "+12362320246", "duration": 1, "status": "busy"}
    return str((await api.ingest(call)).json()["contactId"])


async def test_name_takes_the_place_of_the_placeholder(api: Api) -> None:
    """`previous` is blank then, and no later call or agent brings the placeholder back."""
    contact_id = await unknown(api)
    await api.tool(TOOL, {"phone_number": NUMBER, "last_name": "Morgan"})
    refused = await api.tool(TOOL, {"phone_number": NUMBER, "first_name": "unknown", "last_name": "caller"})
    call = {"direction": "inbound", "fromNumber": NUMBER, "toNumber": "+12362320246", "duration": 1, "status": "busy"}
    for name in ("Unknown Caller", "Somebody Else"):
        await api.ingest(call | {"callerName": name})
    contact = await shown(api, contact_id)
    (event,) = await told(api)

    assert event["previous"] == {"firstName": "", "lastName": ""}
    assert refused.json()["success"] is False
    assert (contact["name"], contact["firstName"], contact["lastName"]) == ("Morgan", "", "Morgan")


async def test_placeholder_of_the_agent_never_replaces_what_a_person_entered(api: Api) -> None:
    """A part that stands for an unknown name is left out; what is left is set."""
    contact_id = await contact_of(api, NUMBER, "Ana Berg")
    answers = [
        (await api.tool(TOOL, {"phone_number": NUMBER} | body)).json()
        for body in (
            {"first_name": "Unknown", "last_name": "Caller"},
            {"first_name": " UNKNOWN "},
            {"first_name": "Unknown Caller"},
            {"first_name": "New Contact", "email": "ana@example.com"},
            {"first_name": "Unknown", "last_name": "Lee"},
        )
    ]
    contact = await shown(api, contact_id)

    assert [answer["success"] for answer in answers] == [False, False, False, True, True]
    assert [answer.get("updated_fields") for answer in answers[3:]] == [["email"], ["lastName"]]
    assert contact["name"] == "Ana Lee"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"phone_number": NUMBER}, "Neither a name nor an email address was given"),
        ({"phone_number": NUMBER, "first_name": " ", "email": ""}, "not valid"),
        ({"phone_number": NUMBER, "first_name": "\t"}, "Neither a name nor an email address was given"),
        ({"phone_number": NUMBER, "email": "not an address"}, "The email is not valid"),
        ({"phone_number": NUMBER, "first_name": "A\nB"}, "The first name is not valid"),
        ({"phone_number": NUMBER, "first_name": "x" * 201}, "The first name is not valid"),
        ({"phone_number": NUMBER, "first_name": 7}, "The first name is not valid"),
        ({"phone_number": "+14165550999", "first_name": "Alex"}, "No contact with that phone number was found"),
        ({"phone_number": "12", "first_name": "Alex"}, "does not look like a phone number"),
        ({"phone_number": " ", "first_name": "Alex"}, "does not look like a phone number"),
        ({"first_name": "Alex"}, "The phone number is missing"),
        (b"{", "could not understand"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_sentence(api: Api, body: Any, words: str) -> None:
    """200, `success: false`, and nothing changed."""
    contact_id = await contact_of(api, NUMBER, "Ana Berg")
    before = await shown(api, contact_id)
    answer = await api.tool(TOOL, body)

    assert (answer.status_code, answer.json()["success"]) == (200, False)
    assert words in answer.json()["error"]
    assert len(answer.json()["error"]) < 200
    assert await shown(api, contact_id) == before
    assert await told(api) == []


async def test_same_call_again_does_nothing_and_answers_the_same(api: Api) -> None:
    """Within the window, also when many come at once, and also if something else was set meanwhile."""
    contact_id = await contact_of(api, NUMBER)
    answers = await asyncio.gather(*(api.tool(TOOL, FULL) for _ in range(20)))
    await api.tool(TOOL, FULL | {"first_name": "Sam"})
    again = await api.tool(TOOL, FULL)
    kept = (await shown(api, contact_id))["firstName"]
    await age_invocations(api, 3600)
    await api.tool(TOOL, FULL)

    assert {answer.text for answer in (*answers, again)} == {answers[0].text}
    assert kept == "Sam"
    assert (await shown(api, contact_id))["firstName"] == "Alex"
    assert len(await told(api)) == 3
    assert await api.read(lambda: ContactEmail.select().count()) == 1


async def test_erased_contact_leaves_no_address_and_no_memory_of_the_call(api: Api) -> None:
    """The digest by which a repeat is recognised is over name and address."""
    contact_id = await contact_of(api, NUMBER)
    await api.tool(TOOL, FULL)
    response = await delete(api, contact_id)

    assert response.json()["erased"]["emails"] == 1
    assert await api.read(lambda: (ContactEmail.select().count(), ToolInvocation.select().count())) == (0, 0)
    assert [event["name"] for event in await api.events()] == ["erased", "contact_erased"]
