"""Greeting a caller by name, and what is kept of a call so that the tools and the report find whose it is."""

import json
from typing import Any

import httpx
import pytest

from actions import administer
from actions.personalize import forget_call_contexts
from domain.calls import CALL_CONTEXT_SECONDS
from domain.times import later
from persistence.models import Call, CallContext, Contact, ContactNote, Message, TransferRequest
from tests.handlers.test_erasure import delete
from tests.support.api import Api
from tests.support.reading import contact_of

THEIRS, OURS, SECOND = "+14165550123", "+12362320246", "+14165550199"
TETHER, ELEVENLABS = "/api/webhook/elevenlabs/personalization", "/api/webhook/elevenlabs/conversation-initiation"
CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"
NOBODY_IS_AVAILABLE = {"available_number": "", "available_sip_address": ""}


async def connect(api: Api, **changes: Any) -> httpx.Response:
    body = {"conversation_id": CONVERSATION, "caller_id": THEIRS, "called_id": SECOND, "agent_id": "agent_1"} | changes
    return await api.post(TETHER, body, api.demo.tool_secret.get_secret_value())


async def initiate(api: Api, **changes: Any) -> httpx.Response:
    body = {"caller_id": THEIRS, "agent_id": "agent_1", "called_number": SECOND, "call_sid": "SCL_1"} | changes
    return await api.post(ELEVENLABS, body, api.demo.tool_secret.get_secret_value())


async def report(api: Api, phone_call: dict[str, Any] | None = None) -> httpx.Response:
    """Report the call after it, without any number."""
    data = {
        "conversation_id": CONVERSATION,
        "agent_id": "agent_1",
        "status": "done",
        "transcript": [{"role": "user", "message": "Hi.", "time_in_call_secs": 1}],
        "metadata": {"start_time_unix_secs": 1_796_000_000, "call_duration_secs": 5, "phone_call": phone_call},
        "analysis": {"transcript_summary": "Wants the corner unit."},
    }
    document = {"type": "post_call_transcription", "event_timestamp": 1_796_000_005, "data": data}
    return await api.post("/api/webhook/elevenlabs", document, api.demo.tool_secret.get_secret_value())


async def rows(api: Api, model: Any) -> list[Any]:
    return await api.read(lambda: list(model.select()))


async def age(api: Api, seconds: float) -> None:
    await api.relay.database.write(lambda: CallContext.update(created_at=later(-seconds)).execute())


# The greeting


async def test_caller_who_is_known_is_greeted_by_name(api: Api) -> None:
    """In Tether's form, and in ElevenLabs' own."""
    await contact_of(api, THEIRS, "Alex Morgan")
    variables = {"caller_name": "Alex Morgan", "caller_number": THEIRS, "org_name": "Demo"}
    theirs, own = await connect(api, caller_id="(416) 555-0123"), await initiate(api)

    assert theirs.json() == variables
    variables |= NOBODY_IS_AVAILABLE
    assert own.json() == {"type": "conversation_initiation_client_data", "dynamic_variables": variables}


@pytest.mark.parametrize(("caller", "number"), [(THEIRS, THEIRS), ("", ""), ("anonymous", ""), ("+" + "1" * 600, "")])
async def test_caller_whom_nobody_knows_has_every_variable_and_no_name(api: Api, caller: str, number: str) -> None:
    """Tether's form is empty, so that the call proceeds; ElevenLabs' has every variable that an agent may declare."""
    variables = {"caller_name": "", "caller_number": number, "org_name": "Demo"}
    theirs, own = await connect(api, caller_id=caller), await initiate(api, caller_id=caller)

    assert (theirs.status_code, theirs.json()) == (200, {})
    assert own.json()["dynamic_variables"] == variables | NOBODY_IS_AVAILABLE


async def test_placeholder_is_no_name_to_greet_by(api: Api) -> None:
    """The contact is known and its name is not."""
    call = {"direction": "inbound", "fromNumber": THEIRS, "toNumber": OURS, "duration": 1, "status": "busy"}
    await api.ingest(call)

    assert (await connect(api)).json() == {"caller_name": "", "caller_number": THEIRS, "org_name": "Demo"}


@pytest.mark.parametrize("body", [{}, {"caller_id": None, "called_number": None, "call_sid": None, "agent_id": None}])
async def test_call_over_the_web_proceeds(api: Api, body: dict[str, Any]) -> None:
    """ElevenLabs sends nothing that tells who calls."""
    response = await api.post(ELEVENLABS, body, api.demo.tool_secret.get_secret_value())

    assert response.status_code == 200
    assert await rows(api, CallContext) == []


@pytest.mark.parametrize("path", [TETHER, ELEVENLABS])
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"conversation_id":7}'])
async def test_what_cannot_be_read_is_refused(api: Api, path: str, body: bytes) -> None:
    """400, in the envelope of the webhooks."""
    response = await api.post(path, body, api.demo.tool_secret.get_secret_value())

    assert (response.status_code, "error" in response.json()) == (400, True)


async def test_connecting_again_replaces_the_context(api: Api) -> None:
    """ElevenLabs asks again if an answer was lost."""
    for caller in (SECOND, THEIRS):
        await connect(api, caller_id=caller)
        await initiate(api, caller_id=caller)
    kept = [(one.elevenlabs_conversation_id, one.call_sid, one.caller_number) for one in await rows(api, CallContext)]

    assert sorted(kept, key=str) == [(CONVERSATION, None, THEIRS), (None, "SCL_1", THEIRS)]


# The tools


async def test_tools_that_carry_only_the_conversation_find_the_caller(api: Api) -> None:
    """A wish for a person, a note and a text; the text goes out from the number that was called."""
    contact_id = await contact_of(api, THEIRS)
    await connect(api)
    only = {"phone_number": "", "conversation_id": CONVERSATION}
    await api.tool("transfer", {"reason": "Invoice", "conversation_id": CONVERSATION})
    answers = [
        await api.tool("create-note", only | {"note": "Prefers afternoons."}),
        await api.tool("send-sms", only | {"message": "Here is the link."}),
        await api.tool("update-contact", only | {"last_name": "Quux"}),
    ]
    (wish,), (note,), (text,) = [await rows(api, model) for model in (TransferRequest, ContactNote, Message)]

    assert [answer.json()["success"] for answer in answers] == [True] * 3
    assert {wish.contact_id, note.contact_id, text.contact_id} == {contact_id}
    assert (wish.called_number, text.from_number, text.to_number) == (SECOND, SECOND, THEIRS)


async def test_number_that_is_given_counts_and_not_the_context(api: Api) -> None:
    """An agent may take a note about somebody else."""
    await contact_of(api, THEIRS)
    other = await contact_of(api, "+14165550124")
    await connect(api)
    await api.tool("create-note", {"phone_number": "+14165550124", "note": "x", "conversation_id": CONVERSATION})
    unknown = await api.tool(
        "create-note", {"phone_number": "+14165550125", "note": "x", "conversation_id": CONVERSATION}
    )

    assert [note.contact_id for note in await rows(api, ContactNote)] == [other]
    assert unknown.json()["success"] is False


async def test_contact_that_was_added_after_the_call_connected_is_found(api: Api) -> None:
    """The number tells."""
    await connect(api)
    contact_id = await contact_of(api, THEIRS)
    await api.tool("transfer", {"conversation_id": CONVERSATION})

    assert [wish.contact_id for wish in await rows(api, TransferRequest)] == [contact_id]


async def test_context_of_another_organization_is_none(api: Api) -> None:
    """The conversation's id alone opens nothing."""
    await contact_of(api, THEIRS)
    await connect(api)
    other = await administer.create_organization(api.relay, "Other", "CA")
    await api.relay.database.write(lambda: CallContext.update(organization=other.id, contact=None).execute())
    answer = await api.tool("create-note", {"phone_number": "", "note": "x", "conversation_id": CONVERSATION})

    assert answer.json()["success"] is False


# The report


async def test_report_without_numbers_finds_its_call(api: Api) -> None:
    """By the conversation, for a caller nobody knew."""
    await connect(api)
    response = await report(api)
    (call,), (contact,) = await rows(api, Call), [one for one in await rows(api, Contact) if one.phone_number == THEIRS]

    assert response.json()["callId"] == call.id
    assert (call.from_number, call.to_number, call.contact_id) == (THEIRS, SECOND, contact.id)


async def test_report_without_numbers_finds_its_call_by_the_id_of_the_telephone_network(api: Api) -> None:
    """ElevenLabs' own pre-call webhook does not name the conversation."""
    await initiate(api)
    await report(api, {"type": "sip_trunking", "direction": "inbound", "call_sid": "SCL_1"})

    assert [(call.from_number, call.to_number) for call in await rows(api, Call)] == [(THEIRS, SECOND)]


async def test_report_that_has_numbers_keeps_them(api: Api) -> None:
    """The context only fills in what is missing."""
    await connect(api)
    phone = {"direction": "inbound", "external_number": "+14165550124", "agent_number": OURS}
    await report(api, phone)

    assert [(call.from_number, call.to_number) for call in await rows(api, Call)] == [("+14165550124", OURS)]


# A day


@pytest.mark.parametrize(
    ("seconds", "is_known"), [(CALL_CONTEXT_SECONDS - 60, True), (CALL_CONTEXT_SECONDS + 1, False)]
)
async def test_context_is_kept_for_a_day(api: Api, seconds: float, is_known: bool) -> None:
    """A day later nothing finds it, and then it is gone."""
    await contact_of(api, THEIRS)
    await connect(api)
    await age(api, seconds)
    answer = await api.tool("create-note", {"phone_number": "", "note": "x", "conversation_id": CONVERSATION})
    reported = (await report(api)).json()
    forgotten = await forget_call_contexts(api.relay)

    assert answer.json()["success"] is is_known
    assert ("callId" in reported) is is_known
    assert forgotten == (0 if is_known else 1)
    assert len(await rows(api, CallContext)) == (1 if is_known else 0)


# Erasing


async def test_erased_caller_leaves_no_context(api: Api) -> None:
    """Neither one that named the contact nor one from before the contact was known; and nothing finds the person."""
    await connect(api)
    contact_id = await contact_of(api, THEIRS)
    await initiate(api)
    await api.tool("transfer", {"reason": "Invoice", "conversation_id": "conv_other"})
    response = await delete(api, contact_id)
    answer = await api.tool("create-note", {"phone_number": "", "note": "x", "conversation_id": CONVERSATION})
    left = json.dumps([one.__data__ for one in await rows(api, CallContext)])

    assert response.json()["erased"]["callContexts"] == 2
    assert (left, answer.json()["success"]) == ("[]", False)
    assert "callId" not in (await report(api)).json()
