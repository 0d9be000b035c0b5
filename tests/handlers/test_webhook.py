import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actions import administer
from actions.text_caller import recover_stranded
from domain.lengths import LENGTHS
from persistence.models import ContactNote, Conversation, Message, ToolInvocation, TransferRequest
from tests.support.api import Api, running_api
from tests.support.faulty_http import Fault, Reply
from tests.support.vendors import FakeSinch, FakeTextGrid, FakeTwilio
from tests.support.waiting import patience, until

pytestmark = pytest.mark.any_engine

PHONE = "+14165550100"
OURS = "+12362320246"
SECOND = "+14165550199"
NOTE = {"phone_number": PHONE, "note": "  Wants a callback on Friday.  "}
TEXT = {"phone_number": PHONE, "message": "Here is the link."}
HOLD = "Transfer is not yet implemented — please ask the caller to hold while a human agent joins."


def spoken(response: Any) -> str:
    """Return the one sentence of a recoverable problem, having checked that a voice can say it."""
    body = response.json()
    assert response.status_code == 200, response.text
    assert body["success"] is False
    sentence = str(body["error"])
    assert 0 < len(sentence) < 200
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not re.search(r"[0-9a-f]{24}|_|[{}\[\]<>]", sentence), sentence
    return sentence


async def rows(api: Api, model: Any) -> list[Any]:
    return list(await api.read(lambda: list(model.select().order_by(model.id))))


# Create-note


@pytest.mark.each_engine
async def test_a_note_is_stored_trimmed_as_an_ai_summary_and_announced(api: Api) -> None:
    """The answer names the note, the row says who wrote it, and one event follows."""
    response = await api.tool("create-note", {**NOTE, "conversation_id": "conv_1"})
    (note,) = await rows(api, ContactNote)
    (event,) = await api.events()

    assert response.json() == {"success": True, "note_id": note.id}
    assert (note.note, note.type, note.source_tool) == ("Wants a callback on Friday.", "ai_summary", "create-note")
    assert note.elevenlabs_conversation_id == "conv_1"
    assert event["name"] == "note_created"
    assert event["data"] == {
        "noteId": note.id,
        "contactId": note.contact_id,
        "type": "ai_summary",
        "note": "Wants a callback on Friday.",
        "createdAt": note.created_at,
        "source": {"tool": "create-note", "conversationId": "conv_1"},
    }


async def test_a_national_number_is_read_in_the_organizations_region(api: Api) -> None:
    """The demo is Canadian, so (416) 555-0100 is +1 416 555 0100."""
    response = await api.tool("create-note", {**NOTE, "phone_number": "(416) 555-0100"})

    assert response.json()["success"] is True


BAD_NOTES: list[object] = [
    {"note": "x"},
    {"phone_number": PHONE},
    {"phone_number": PHONE, "note": "   "},
    {"phone_number": "", "note": "x"},
    {"phone_number": "soon", "note": "x"},
    {"phone_number": 14165550100, "note": "x"},
    {"phone_number": PHONE, "note": None},
    {"phone_number": "+14165550111", "note": "nobody has this number"},
    {"phone_number": PHONE, "note": {"text": "x"}},
    [],
    "text",
    None,
    b"",
    b"{",
    b'{"phone_number": "+14165550100", "note": "\xff"}',
    b'{"phone_number": "+14165550100", "note": "\\ud800"}',
    b'{"phone_number": "+14165550100", "note": "a\\u0000b"}',
    b'{"phone_number": "+14165550100", "note": "x", "n": NaN}',
    b'{"phone_number": "+14165550100", "note": "x", "n": 1e999}',
    b'{"phone_number": "+14165550100", "note": "x", "n": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
]


async def test_whatever_is_wrong_with_a_note_is_one_sentence_and_stores_nothing(
    api: Api, subtests: pytest.Subtests
) -> None:
    """The agent hears why, at status 200, and there is no trace of the attempt."""
    for body in BAD_NOTES:
        with subtests.test(body=repr(body)[:60]):
            spoken(await api.tool("create-note", body))

            assert await rows(api, ContactNote) == await rows(api, ToolInvocation) == await api.events() == []


async def test_unknown_extra_fields_are_accepted(api: Api) -> None:
    """An agent may send along whatever it was set up with."""
    response = await api.tool("create-note", {**NOTE, "mood": {"calm": [1, 2.5, None]}})

    assert response.json()["success"] is True


@pytest.mark.each_engine
async def test_the_same_note_again_returns_the_first_result_and_does_nothing_twice(api: Api) -> None:
    """Twenty simultaneous repeats and a later one: one row, one event, one id."""
    responses = await asyncio.gather(*[api.tool("create-note", NOTE) for _ in range(20)])
    later = await api.tool("create-note", {**NOTE, "note": "Wants a callback on Friday."})
    (note,) = await rows(api, ContactNote)

    assert {response.json()["note_id"] for response in [*responses, later]} == {note.id}
    assert len(await api.events()) == 1


@pytest.mark.parametrize("change", [{"note": "Another."}, {"conversation_id": "conv_2"}])
async def test_a_note_that_differs_is_another_note(api: Api, change: dict[str, str]) -> None:
    """Another text, or another conversation, is not a repeat."""
    first = await api.tool("create-note", NOTE)
    second = await api.tool("create-note", {**NOTE, **change})

    assert first.json()["note_id"] != second.json()["note_id"]


async def test_the_same_words_about_two_contacts_are_two_notes_and_two_texts(api: Api) -> None:
    """A repeat is about the same person."""
    await administer.add_contact(api.relay, api.organization_id, SECOND, "Robin Example")
    for number in (PHONE, SECOND):
        assert (await api.tool("create-note", {**NOTE, "phone_number": number})).json()["success"] is True
        assert (await api.tool("send-sms", {**TEXT, "phone_number": number})).json()["success"] is True
    notes, messages = await rows(api, ContactNote), await rows(api, Message)

    assert len({note.contact_id for note in notes}) == len(notes) == 2
    assert [message.to_number for message in messages] == [PHONE, SECOND]


async def test_a_conversation_id_that_fits_no_index_is_left_out(api: Api) -> None:
    """The note is saved all the same: nobody breaks off a call over an id."""
    longest = LENGTHS["conversationId"]
    for length in (longest, longest + 1):
        answer = await api.tool("create-note", {**NOTE, "conversation_id": "x" * length})
        assert answer.json()["success"] is True

    assert [note.elevenlabs_conversation_id for note in await rows(api, ContactNote)] == ["x" * longest, None]


@pytest.mark.each_engine
async def test_after_the_replay_window_the_same_note_is_a_new_one(tmp_path: Path) -> None:
    """The window is a setting; with none, every call counts."""
    async with running_api(tmp_path, tool_replay_seconds=0) as api:
        first = await api.tool("create-note", NOTE)
        second = await api.tool("create-note", NOTE)

        assert first.json()["note_id"] != second.json()["note_id"]


async def test_the_secret_alone_selects_the_organization(api: Api) -> None:
    """Another organization's secret finds nobody, even with that organization's numbers in the body."""
    other = await administer.create_organization(api.relay, "Other", "CA")
    secret = await administer.new_tool_secret(api.relay, other.id)
    body = {**NOTE, "organizationId": api.organization_id, "called_id": OURS}
    response = await api.post("/api/webhook/elevenlabs/tools/create-note", body, secret.get_secret_value())

    assert "contact" in spoken(response)


async def test_a_replaced_secret_keeps_working_for_the_overlap_and_then_no_more(tmp_path: Path) -> None:
    """Calls under way survive a rotation; with no overlap the old secret is refused at once."""
    for overlap, expected in ((60, 200), (0, 401)):
        async with running_api(tmp_path / str(overlap), tool_secret_overlap_minutes=overlap) as api:
            old = api.demo.tool_secret.get_secret_value()
            response = await api.configure({"generateToolSecret": True})
            fresh = response.json()["elevenlabsToolSecret"]
            with_old = await api.post("/api/webhook/elevenlabs/tools/create-note", NOTE, old)
            with_new = await api.post("/api/webhook/elevenlabs/tools/create-note", NOTE, fresh)

            assert re.fullmatch(r"[0-9a-f]{64}", fresh)
            assert (with_old.status_code, with_new.status_code) == (expected, 200)


# Send-sms


async def test_a_text_is_stored_sent_and_announced(api: Api) -> None:
    """It appears in the thread as written by the AI, marked to trigger no automation."""
    response = await api.tool("send-sms", {**TEXT, "conversation_id": "conv_1"})
    (message,) = await rows(api, Message)
    (conversation,) = await rows(api, Conversation)
    announced, status = await api.events()

    assert response.json() == {"success": True, "message": "SMS sent"}
    assert (message.author, message.skip_automation, message.status) == ("ai", True, "sent")
    assert (message.from_number, message.to_number, message.provider) == (OURS, PHONE, "console")
    assert (message.source_tool, message.elevenlabs_conversation_id) == ("send-sms", "conv_1")
    assert message.provider_message_id
    assert (conversation.channel_type, conversation.channel_identifier) == ("sms", OURS)
    assert (announced["name"], announced["data"]["messageId"]) == ("fetch_messages", message.id)
    assert announced["data"]["message"]["status"] == "queued"
    assert announced["data"]["message"]["skipAutomation"] is True
    assert (status["name"], status["data"]["status"]) == ("message_status", "sent")


CALLED_NUMBERS: list[tuple[dict[str, str], str]] = [
    ({"called_id": SECOND}, SECOND),
    ({"called_number": SECOND}, SECOND),
    ({"called_id": "(416) 555-0199"}, SECOND),
    ({"called_id": "+19995550000"}, OURS),
    ({"called_id": "nonsense"}, OURS),
]


async def test_a_text_leaves_from_the_number_that_was_called(api: Api, subtests: pytest.Subtests) -> None:
    """Ours if it is one of the organization's, else the default."""
    for fields, expected in CALLED_NUMBERS:
        with subtests.test(fields=repr(fields)[:60]):
            await api.tool("send-sms", {**TEXT, "message": f"By {fields}.", **fields})
            message = (await rows(api, Message))[-1]

            assert message.from_number == expected


@pytest.mark.each_engine
async def test_texts_to_one_contact_from_one_number_share_a_conversation(api: Api) -> None:
    """The thread is found again."""
    await api.tool("send-sms", TEXT)
    await api.tool("send-sms", {**TEXT, "message": "And another thing."})
    await api.tool("send-sms", {**TEXT, "message": "From elsewhere.", "called_id": SECOND})
    messages = await rows(api, Message)

    assert len(messages) == 3
    assert len(await rows(api, Conversation)) == 2


BAD_TEXTS: list[object] = [
    {"message": "x"},
    {"phone_number": PHONE},
    {"phone_number": PHONE, "message": " \n "},
    {"phone_number": PHONE, "message": "x" * 1601},
    {"phone_number": "+14165550111", "message": "x"},
    {"phone_number": PHONE, "message": ["x"]},
    b"not json",
]


async def test_a_text_that_cannot_be_sent_is_one_sentence_and_stores_nothing(
    api: Api, subtests: pytest.Subtests
) -> None:
    """The agent hears why, at status 200."""
    for body in BAD_TEXTS:
        with subtests.test(body=repr(body)[:60]):
            spoken(await api.tool("send-sms", body))

            assert await rows(api, Message) == await api.events() == []


async def test_without_a_provider_the_agent_hears_so(api: Api) -> None:
    """An organization that never chose one cannot send."""
    other = await administer.create_organization(api.relay, "Other", "CA")
    await administer.add_contact(api.relay, other.id, PHONE, "Alex")
    secret = await administer.new_tool_secret(api.relay, other.id)
    response = await api.post("/api/webhook/elevenlabs/tools/send-sms", TEXT, secret.get_secret_value())

    assert "not set up" in spoken(response)
    assert await rows(api, Message) == []


# Below what the provider's own client allows, so that it is this limit that ends.
SMS_SECONDS = 3.4


@pytest.fixture
async def texting(tmp_path: Path, twilio: FakeTwilio) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var", twilio_url=twilio.url, sms_timeout_seconds=SMS_SECONDS) as api:
        await administer.configure_sms(api.relay, api.organization_id, "twilio", dict(twilio.credentials))
        yield api


async def test_a_text_goes_through_twilio_once(texting: Api, twilio: FakeTwilio) -> None:
    """What Twilio gets is what was asked, and its id is kept."""
    response = await texting.tool("send-sms", TEXT)
    (message,) = await rows(texting, Message)
    (sent,) = twilio.messages

    assert response.json()["success"] is True
    assert (sent["from"], sent["to"], sent["body"]) == (OURS, PHONE, "Here is the link.")
    assert (message.provider_message_id, message.status) == (sent["sid"], "sent")


@pytest.mark.each_engine
async def test_simultaneous_repeats_of_a_text_send_it_once_and_hear_the_same(texting: Api, twilio: FakeTwilio) -> None:
    """Those who come while the first is at work wait for its outcome."""
    responses = await asyncio.gather(*[texting.tool("send-sms", TEXT) for _ in range(10)])

    assert [response.json() for response in responses] == [{"success": True, "message": "SMS sent"}] * 10
    assert len(twilio.messages) == len(await rows(texting, Message)) == 1


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Reply(400, {"code": 21610, "message": "Attempt to send to unsubscribed recipient", "status": 400}), "failed"),
        (Reply(401, {"code": 20003, "message": "Authenticate", "status": 401}), "failed"),
        (Reply(429, {"code": 20429, "message": "Too Many Requests", "status": 429}), "failed"),
        (Fault.RESET_BEFORE_READING, "failed"),
        (Reply(500, {"code": 20500, "message": "Internal", "status": 500}), "unknown"),
        (Reply(201, body=b"<html>gateway</html>"), "unknown"),
        (Fault.RESET_AFTER_PROCESSING, "unknown"),
        (Fault.HANG_AFTER_PROCESSING, "unknown"),
    ],
)
async def test_a_text_whose_sending_goes_wrong_is_never_sent_again(
    texting: Api, twilio: FakeTwilio, behaviour: Fault | Reply, status: str, move_on: Callable[[float], None]
) -> None:
    """It ends failed or unknown, the agent hears so, and a repeat changes nothing."""
    twilio.behave(behaviour)
    sending = asyncio.create_task(texting.tool("send-sms", TEXT))
    if isinstance(behaviour, Fault) and behaviour.name.startswith("HANG"):
        await until(lambda: twilio.requests)
        move_on(SMS_SECONDS)
    first = spoken(await sending)
    again = spoken(await texting.tool("send-sms", TEXT))
    (message,) = await rows(texting, Message)
    names = [event["name"] for event in await texting.events()]

    assert message.status in ({status, "unknown"} if behaviour is Fault.RESET_BEFORE_READING else {status})
    assert first == again
    assert len(twilio.requests) <= 1
    assert names == ["fetch_messages", "message_status"]


async def test_a_provider_that_never_answers_costs_no_more_than_the_limit(
    texting: Api, twilio: FakeTwilio, move_on: Callable[[float], None]
) -> None:
    """The answer comes although the vendor's does not, and the outcome is recorded as unknown."""
    twilio.behave(Fault.HANG_AFTER_READING, always=True)
    sending = asyncio.create_task(texting.tool("send-sms", TEXT))
    await until(lambda: twilio.requests)
    move_on(SMS_SECONDS)
    async with patience():
        sentence = spoken(await sending)
    (message,) = await rows(texting, Message)

    assert "may not have gone through" in sentence
    assert message.status == "unknown"


@pytest.mark.each_engine
async def test_a_text_whose_sender_died_becomes_unknown_and_stays_unsent(texting: Api, twilio: FakeTwilio) -> None:
    """A queued message that is found later is closed, not sent."""
    await texting.tool("send-sms", TEXT)
    await texting.relay.database.write(lambda: Message.update(status="queued").execute())
    left_alone = await recover_stranded(texting.relay)
    recovered = await recover_stranded(texting.relay, older_than=-1)
    (message,) = await rows(texting, Message)

    assert (left_alone, recovered, message.status) == (0, 1, "unknown")
    assert len(twilio.messages) == 1


async def test_a_text_goes_through_sinch_and_textgrid_too(tmp_path: Path) -> None:
    """The provider is the organization's choice; both kinds of Sinch credentials work."""
    async with FakeSinch() as sinch, FakeTextGrid() as textgrid:
        urls = {"sinch_auth_url": sinch.url, "sinch_sms_url": sinch.url, "textgrid_url": textgrid.url}
        async with running_api(tmp_path, **urls) as api:
            for number, (provider, credentials) in enumerate(
                [("sinch", sinch.service_plan), ("sinch", sinch.project), ("textgrid", textgrid.credentials)]
            ):
                await administer.configure_sms(api.relay, api.organization_id, provider, dict(credentials))
                response = await api.tool("send-sms", {**TEXT, "message": f"Text {number}"})
                assert response.json() == {"success": True, "message": "SMS sent"}
            statuses = [(message.provider, message.status) for message in await rows(api, Message)]

        assert statuses == [("sinch", "sent"), ("sinch", "sent"), ("textgrid", "sent")]
        assert (len(sinch.batches), len(textgrid.messages)) == (2, 1)


# Transfer


async def test_a_transfer_is_answered_as_documented_stored_and_announced(api: Api) -> None:
    """The agent asks the caller to hold while the people who listen learn of it."""
    body = {"reason": " Wants a supervisor ", "conversation_id": "conv_1", "called_id": OURS}
    response = await api.tool("transfer", body)
    (request,) = await rows(api, TransferRequest)
    (event,) = await api.events()

    assert response.json() == {"success": False, "message": HOLD}
    assert (request.reason, request.called_number) == ("Wants a supervisor", OURS)
    assert event["name"] == "transfer_requested"
    assert event["data"] == {
        "transferRequestId": request.id,
        "reason": "Wants a supervisor",
        "elevenlabsConversationId": "conv_1",
        "calledNumber": OURS,
        "requestedAt": request.requested_at,
    }


@pytest.mark.each_engine
async def test_a_transfer_knows_the_contact_of_its_conversation(api: Api) -> None:
    """A note taken earlier in the same conversation tells whose call it is."""
    await api.tool("create-note", {**NOTE, "conversation_id": "conv_1"})
    await api.tool("transfer", {"conversation_id": "conv_1"})
    (note,) = await rows(api, ContactNote)
    (request,) = await rows(api, TransferRequest)

    assert request.contact_id == note.contact_id


async def test_an_empty_transfer_is_a_transfer(api: Api) -> None:
    """Nothing in its body is required."""
    response = await api.tool("transfer", {})

    assert response.json() == {"success": False, "message": HOLD}
    assert len(await rows(api, TransferRequest)) == 1


@pytest.mark.each_engine
async def test_the_same_transfer_again_is_one_request(api: Api) -> None:
    """A repeat within the window tells nobody twice."""
    body = {"reason": "Wants a supervisor", "conversation_id": "conv_1"}
    responses = await asyncio.gather(*[api.tool("transfer", body) for _ in range(5)])

    assert [response.json()["message"] for response in responses] == [HOLD] * 5
    assert len(await rows(api, TransferRequest)) == len(await api.events()) == 1


@pytest.mark.parametrize("change", [{"conversation_id": "conv_2"}, {"called_id": SECOND}, {"reason": "Invoice"}])
async def test_a_transfer_that_differs_is_another_request(api: Api, change: dict[str, str]) -> None:
    """Two callers who want the same are two."""
    body = {"reason": "Wants a supervisor", "conversation_id": "conv_1", "called_id": OURS}
    for asked in (body, body | change):
        await api.tool("transfer", asked)

    assert len(await rows(api, TransferRequest)) == len(await api.events()) == 2


BAD_TRANSFERS: list[object] = [{"reason": 5}, {"conversation_id": []}, [], b"", b"\xff"]


async def test_a_transfer_that_makes_no_sense_is_one_sentence(api: Api, subtests: pytest.Subtests) -> None:
    """The sentence stands in `error` and, as the page has it, in `message`."""
    for body in BAD_TRANSFERS:
        with subtests.test(body=repr(body)[:60]):
            response = await api.tool("transfer", body)

            assert response.json()["message"] == spoken(response)
            assert await rows(api, TransferRequest) == []
