"""What became of a transfer, read from the report of its call: on the request, in the timeline, and as an event."""

import json
from typing import Any

import pytest

from persistence.models import TransferRequest
from tests.handlers.test_erasure import delete
from tests.handlers.test_post_call import Desk, call_id, payload
from tests.handlers.test_post_call import desk as desk
from tests.support.reading import get

CONVERSATION = payload("transcription_inbound_sip")["data"]["conversation_id"]
SUCCESS = {"status": "success", "transfer_number": "+14165550123", "reason": "billing", "note": None}


def use(result: dict[str, Any] | None, *, at: int = 9, number: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Return the turns of one use of the agent's own transfer tool, as ElevenLabs writes them."""
    called = {
        "type": "system",
        "request_id": f"transfer_{number}",
        "tool_name": "transfer_to_number",
        "params_as_json": json.dumps({"reason": "billing", "transfer_number": "+14165550123"}),
        "tool_has_been_called": True,
    }
    answered = {
        "type": "system",
        "request_id": f"transfer_{number}",
        "tool_name": "transfer_to_number",
        "result_value": json.dumps(result),
        "is_error": result is None or result.get("status") != "success",
        "tool_has_been_called": True,
        "result": {"result_type": "transfer_to_number_sip_success"} | (result or {}),
        **more,
    }
    said = {"role": "agent", "message": None, "time_in_call_secs": at}
    return [said | {"tool_calls": [called], "tool_results": []}, said | {"tool_calls": [], "tool_results": [answered]}]


def failure(error: str) -> dict[str, Any]:
    return {"status": "error", "error": error, "details": None}


async def report(desk: Desk, *turns: dict[str, Any]) -> str:
    document = payload("transcription_inbound_sip")
    document["data"]["transcript"] = [*document["data"]["transcript"], *turns]
    return call_id(await desk.deliver(document))


async def ask(desk: Desk, reason: str = "Wants a person.") -> None:
    response = await desk.api.tool("transfer", {"reason": reason, "conversation_id": CONVERSATION})
    assert response.status_code == 200


async def ended(desk: Desk) -> list[dict[str, Any]]:
    return [event["data"] for event in await desk.api.events() if event["name"] == "transfer_ended"]


async def shown(desk: Desk, call: str) -> list[dict[str, Any]]:
    told = (await get(desk.api, f"/api/calls/{call}")).json()["call"]
    requests: list[dict[str, Any]] = told["transferRequests"]
    return requests


@pytest.mark.parametrize(
    ("turns", "outcome", "reason"),
    [
        (use(SUCCESS), "connected", None),
        (use(failure("REFER rejected: 403 Forbidden")), "refused", "REFER rejected: 403 Forbidden"),
        (use(failure("No answer after 30 seconds")), "no-answer", "No answer after 30 seconds"),
        (use(failure("SIP status 480")), "no-answer", "SIP status 480"),
        (use(None, raw_error_message="Tool failed"), "refused", "Tool failed"),
        (use(SUCCESS, is_blocked=True), "refused", None),
        (use(SUCCESS, tool_has_been_called=False), "not-attempted", None),
        ([], "not-attempted", None),
    ],
    ids=["connected", "refused", "no-answer", "480", "failed", "blocked", "not-called", "not-attempted"],
)
async def test_outcome_of_a_request_is_what_the_report_says(
    desk: Desk, turns: list[dict[str, Any]], outcome: str, reason: str | None
) -> None:
    """It stands on the call, in the timeline, and in one event; a report that comes again changes nothing."""
    await ask(desk)
    call = await report(desk, *turns)
    await report(desk, *turns)
    (request,) = await shown(desk, call)
    (event,) = await ended(desk)
    contact = (await get(desk.api, f"/api/calls/{call}")).json()["call"]["contactId"]
    timeline = (await get(desk.api, f"/api/contacts/{contact}/timeline")).json()["timeline"]
    (entry,) = [one["transferRequest"] for one in timeline if one["kind"] == "transfer_request"]

    assert (request["outcome"], request["outcomeReason"]) == (outcome, reason)
    assert entry == request
    assert (event["outcome"], event.get("reason"), event["transferRequestId"]) == (outcome, reason, request["_id"])
    assert (event["callId"], event["contactId"]) == (call, contact)


async def test_transfer_that_nobody_requested_is_a_request_of_its_own(desk: Desk) -> None:
    """The agent used its own tool without telling us first; the words are those it gave the tool."""
    call = await report(desk, *use(SUCCESS))
    await report(desk, *use(SUCCESS))
    (request,) = await shown(desk, call)

    assert (request["outcome"], request["reason"]) == ("connected", "billing")
    assert len(await ended(desk)) == 1


async def test_request_is_connected_if_one_of_several_tries_was(desk: Desk) -> None:
    """The first number did not answer, the second did."""
    await ask(desk)
    call = await report(desk, *use(failure("No answer")), *use(SUCCESS, at=20, number=2))

    assert [one["outcome"] for one in await shown(desk, call)] == ["connected"]


async def test_outcome_that_is_known_stays(desk: Desk) -> None:
    """A later report that tells of more tries neither changes it nor announces it again."""
    await ask(desk)
    call = await report(desk, *use(failure("busy")))
    await report(desk, *use(failure("busy")), *use(SUCCESS, at=20, number=2))

    assert [one["outcome"] for one in await shown(desk, call)] == ["refused"]
    assert [one["outcome"] for one in await ended(desk)] == ["refused"]


async def test_requests_and_tries_are_told_apart_by_their_order(desk: Desk) -> None:
    """Two requests, of which only the first one led to a try."""
    await ask(desk, "First.")
    await ask(desk, "Second.")
    call = await report(desk, *use(failure("busy")))

    assert [(one["reason"], one["outcome"]) for one in await shown(desk, call)] == [
        ("First.", "refused"),
        ("Second.", "not-attempted"),
    ]


async def test_outcome_arrives_though_the_call_was_pushed_in_before(desk: Desk) -> None:
    """The push has no tool results; the report that comes later has."""
    await ask(desk)
    push = {
        "direction": "inbound",
        "fromNumber": "+14165550123",
        "toNumber": "+12362320246",
        "duration": 30,
        "status": "failed",
        "externalCallId": CONVERSATION,
    }
    assert (await desk.api.ingest(push)).status_code == 201
    call = await report(desk, *use(SUCCESS))

    assert [one["outcome"] for one in await shown(desk, call)] == ["connected"]


async def test_outcome_goes_with_the_person(desk: Desk) -> None:
    """What the vendor wrote about the transfer is erased with the request, and a late report brings nothing back."""
    await ask(desk)
    call = await report(desk, *use(failure("No answer from Alex")))
    contact = (await get(desk.api, f"/api/calls/{call}")).json()["call"]["contactId"]
    await delete(desk.api, contact)
    await report(desk, *use(failure("No answer from Alex")))

    assert await desk.api.read(lambda: TransferRequest.select().count()) == 0
    assert "Alex" not in json.dumps(await desk.api.events())
