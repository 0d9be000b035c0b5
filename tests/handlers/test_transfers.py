"""Transfer requests that name no conversation: told apart, tied to their caller if unmistakable, aged out if not."""

import json
from typing import Any

import pytest

from actions.apply_retention import apply_retention, due, set_retention
from domain.replay import ANONYMOUS_REPLAY_SECONDS
from domain.times import later
from persistence.models import Event, ToolInvocation, TransferRequest
from persistence.retention import Retention
from tests.handlers.test_calls import missed, rows
from tests.handlers.test_erasure import delete
from tests.support.api import Api

OURS, FIRST, SECOND = "+12362320246", "+14165550123", "+14165550124"
REASON = "wants to speak to Margaret"


async def ask(api: Api, **body: Any) -> None:
    response = await api.tool("transfer", {"reason": REASON} | body)
    assert response.status_code == 200


async def age_invocations(api: Api, seconds: float) -> None:
    """Make every remembered tool call that many seconds older."""
    await api.relay.database.write(lambda: ToolInvocation.update(invoked_at=later(-seconds)).execute())


@pytest.mark.parametrize(
    ("body", "age", "requests"),
    [
        ({}, 0, 1),
        ({}, ANONYMOUS_REPLAY_SECONDS + 1, 2),
        ({"conversation_id": "conv_1"}, ANONYMOUS_REPLAY_SECONDS + 1, 1),
    ],
)
async def test_same_words_are_a_repeat_within_two_seconds_or_within_a_conversation(
    api: Api, body: dict[str, Any], age: float, requests: int
) -> None:
    """Two callers who ask in the same words are two requests, each announced; a retry of one is one."""
    await ask(api, **body)
    await age_invocations(api, age)
    await ask(api, **body)

    assert len(await rows(api, TransferRequest)) == requests
    assert [event["name"] for event in await api.events()] == ["transfer_requested"] * requests


async def record(api: Api, number: str, external_call_id: str, **changes: Any) -> str:
    """Record a call on our number that is under way now; return its contact."""
    during = {"callStartTime": later(-60), "duration": 3600, "toNumber": OURS}
    body = missed(fromNumber=number, externalCallId=external_call_id) | during | changes
    response = await api.ingest(body)
    assert response.status_code == 201, response.text
    return str(response.json()["contactId"])


async def test_request_without_a_conversation_is_tied_to_the_only_call_at_the_time(api: Api) -> None:
    """It is then erased with the contact, its event included."""
    await ask(api, called_id=OURS)
    contact_id = await record(api, FIRST, "1")
    (request,) = await rows(api, TransferRequest)
    tied = request.contact_id
    response = await delete(api, contact_id)
    events = await api.read(lambda: [event.data for event in Event.select()])

    assert tied == contact_id
    assert response.status_code == 200
    assert await rows(api, TransferRequest) == []
    assert REASON not in json.dumps(events)


@pytest.mark.parametrize(
    "other",
    [
        {"callStartTime": "2026-01-01T00:00:00.000Z", "duration": 5},
        {"toNumber": "+12362320999"},
    ],
)
async def test_request_is_not_tied_to_a_call_at_another_time_or_on_another_number(
    api: Api, other: dict[str, Any]
) -> None:
    """Nothing is guessed."""
    await ask(api, called_id=OURS)
    await record(api, FIRST, "1", **other)
    (request,) = await rows(api, TransferRequest)

    assert (request.contact_id, request.call_id) == (None, None)


async def test_request_during_two_calls_is_tied_to_neither_of_those_recorded_before_it(api: Api) -> None:
    """Two callers at once on one number: nobody can say whose it was."""
    for number, external_call_id in ((FIRST, "1"), (SECOND, "2")):
        await record(api, number, external_call_id)
    await ask(api, called_id=OURS)
    await record(api, "+14165550125", "3")
    (request,) = await rows(api, TransferRequest)

    assert (request.contact_id, request.call_id) == (None, None)


async def test_request_that_was_tied_is_untied_when_another_caller_turns_out_to_have_called(api: Api) -> None:
    """The calls overlap, and the one that ended first was recorded first: it may have been either's."""
    await ask(api, called_id=OURS)
    contact_id = await record(api, FIRST, "1")
    (before,) = await rows(api, TransferRequest)
    await record(api, SECOND, "2")
    (after,) = await rows(api, TransferRequest)

    assert before.contact_id == contact_id
    assert (after.contact_id, after.call_id) == (None, None)


async def test_request_during_two_calls_of_one_caller_is_theirs(api: Api) -> None:
    """Two legs, pushed under two ids, are one person's."""
    await ask(api, called_id=OURS)
    contact_id = await record(api, FIRST, "1")
    await record(api, FIRST, "2")
    (request,) = await rows(api, TransferRequest)

    assert request.contact_id == contact_id


async def test_request_of_nobody_known_goes_with_the_transcripts(api: Api) -> None:
    """Its reason and its event are erased once transcripts of its age are; a tied request stays with its contact."""
    await ask(api)
    await ask(api, called_id=OURS)
    await record(api, FIRST, "1")
    await api.relay.database.write(lambda: TransferRequest.update(requested_at="2026-01-01T00:00:00.000Z").execute())
    await set_retention(api.relay, api.organization_id, Retention(transcripts=1))
    (found,) = await due(api.relay)
    removed = [count async for count in apply_retention(api.relay, found)]
    (kept,) = await rows(api, TransferRequest)
    (erased, *_) = await api.events()

    assert (found.requests, sum(removed)) == (1, 1)
    assert kept.contact_id is not None
    assert (erased["name"], erased["data"]) == ("erased", {})
