"""Reading conversations and their messages."""

from typing import Any

import pytest

from tests.handlers.test_contacts import walk
from tests.support.api import Api
from tests.support.reading import OURS, contact_of, conversation_row, get, message_row

pytestmark = pytest.mark.any_engine

ABSENT = "0" * 24
ALL = "/api/conversation/all"


async def thread(api: Api, messages: int = 5) -> tuple[str, str, list[str]]:
    """Write a conversation; return the contact, the conversation and the messages' ids, newest first."""
    contact_id = await contact_of(api)

    def unit() -> tuple[str, list[str]]:
        conversation = conversation_row(api.organization_id, contact_id, last_message_at="2026-05-15T09:00:09.000Z")
        rows = [
            message_row(
                api.organization_id,
                contact_id,
                conversation.id,
                id=f"{index:024x}",
                text=f"Text {index}",
                created_at=f"2026-05-15T09:00:0{index // 2}.000Z",
            )
            for index in range(messages)
        ]
        return conversation.id, [row.id for row in reversed(rows)]

    conversation_id, ids = await api.relay.database.write(unit)
    return contact_id, conversation_id, ids


async def test_a_text_the_agent_sent_is_found_in_its_conversation(api: Api) -> None:
    """From the contact to the thread to the message, as it went."""
    await api.tool("send-sms", {"phone_number": api.demo.contact_phone, "message": "Here is the link."})
    contact = (await get(api, "/api/contacts", search=api.demo.contact_phone)).json()["data"]["contacts"][0]
    (found,) = (await api.post(ALL, {"contactId": contact["_id"]}, api.superadmin_token)).json()["conversations"]
    messages = (await get(api, f"/api/conversation/{found['_id']}/messages")).json()["messages"]
    (message,) = messages

    assert (found["channelType"], found["channelIdentifier"], found["messageCount"]) == ("sms", OURS, 1)
    assert (found["latestMessage"], found["contactId"]) == ("Here is the link.", contact["_id"])
    assert found["lastMessageTime"] == message["createdAt"]
    assert (message["text"], message["author"], message["status"], message["skipAutomation"]) == (
        "Here is the link.",
        "ai",
        "sent",
        True,
    )
    assert (message["from"], message["to"]) == (OURS, api.demo.contact_phone)


async def test_one_conversation_is_read(api: Api) -> None:
    """As it stands in the list."""
    contact_id, conversation_id, _ = await thread(api)
    listed = (await api.post(ALL, {"contactId": contact_id}, api.superadmin_token)).json()["conversations"]
    response = await get(api, f"/api/conversation/{conversation_id}")

    assert [response.json()["conversation"]] == listed
    assert (listed[0]["latestMessage"], listed[0]["messageCount"]) == ("Text 4", 5)


@pytest.mark.each_engine
async def test_each_channel_has_conversations_of_its_own(api: Api) -> None:
    """`sms` is the default, `voice` another, and channels we do not have are empty."""
    call = {"direction": "inbound", "fromNumber": "+14165550123", "toNumber": OURS, "duration": 0, "status": "busy"}
    made = (await api.ingest(call)).json()
    body = {"contactId": made["contactId"]}
    counts = {}
    for channel in (None, "voice", "whatsapp"):
        chosen: dict[str, Any] = body | ({"channelType": channel} if channel else {})
        counts[channel] = len((await api.post(ALL, chosen, api.superadmin_token)).json()["conversations"])

    assert counts == {None: 0, "voice": 1, "whatsapp": 0}


PAGE_SIZES: list[int] = [1, 2, 3, 5, 200]


@pytest.mark.each_engine
async def test_messages_are_read_whole_and_newest_first_whatever_the_page(api: Api, subtests: pytest.Subtests) -> None:
    """Each once, also where two share a moment."""
    _, conversation_id, ids = await thread(api)
    for limit in PAGE_SIZES:
        with subtests.test(limit=repr(limit)[:60]):
            found = await walk(api, f"/api/conversation/{conversation_id}/messages", "messages", limit)

            assert [message["_id"] for message in found] == ids


async def test_a_conversation_that_is_not_there_is_404(api: Api) -> None:
    """And so is one of a contact that is not there; an id that is none is 400."""
    answers = [
        await get(api, f"/api/conversation/{ABSENT}"),
        await get(api, f"/api/conversation/{ABSENT}/messages"),
        await api.post(ALL, {"contactId": ABSENT}, api.superadmin_token),
        await get(api, "/api/conversation/nonsense"),
        await api.post(ALL, {"contactId": "nonsense"}, api.superadmin_token),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 400, 400]
    assert {answer.json()["success"] for answer in answers} == {False}
