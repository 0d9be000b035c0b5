"""Reading the outbox over HTTP."""

import asyncio
import json
from typing import Any

import pytest

from domain.events import Event as DomainEvent
from domain.events import EventName
from persistence import outbox
from persistence.models import Event, User
from tests.support import published_events
from tests.support.api import Api
from tests.support.reading import get
from tests.support.waiting import patience

pytestmark = pytest.mark.any_engine

EVENTS = "/api/events"
CONTACT, AT = "c" * 24, "2026-05-15T09:10:00.000Z"


@pytest.fixture
async def seven(api: Api) -> None:
    """Seven events of several kinds."""
    number = api.demo.contact_phone
    call = {"direction": "inbound", "fromNumber": number, "toNumber": "+12362320246", "duration": 0, "status": "busy"}
    await api.ingest(call)
    await api.tool("send-sms", {"phone_number": number, "message": "Hello."})
    await api.tool("create-note", {"phone_number": number, "note": "Asked."})
    await api.tool("transfer", {})
    assert await api.head() == 7


async def read(api: Api, token: str | None = None, **params: Any) -> dict[str, Any]:
    response = await get(api, EVENTS, token, **params)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.usefixtures("seven")
async def test_events_are_those_of_the_socket(api: Api) -> None:
    """Every one is a frame as the socket would carry it."""
    body = await read(api)
    for event in body["events"]:
        published_events.check(json.dumps(event))

    assert [event["seq"] for event in body["events"]] == list(range(1, 8))
    assert (body["next"], body["oldest"], body["head"]) == (7, 1, 7)


PAGE_SIZES: list[int] = [1, 3, 7, 1000]


@pytest.mark.usefixtures("seven")
@pytest.mark.each_engine
async def test_asking_again_with_next_reads_everything_once(api: Api, subtests: pytest.Subtests) -> None:
    """Until there is no more, and then `next` stays where it is."""
    for limit in PAGE_SIZES:
        with subtests.test(limit=repr(limit)[:60]):
            seen, since = [], 0
            for _ in range(20):
                body = await read(api, since=since, limit=limit)
                seen += [event["seq"] for event in body["events"]]
                if body["next"] == since:
                    break
                since = body["next"]

            assert seen == list(range(1, 8))


@pytest.mark.usefixtures("seven")
@pytest.mark.each_engine
async def test_what_is_no_longer_kept_is_admitted(api: Api) -> None:
    """`oldest` above `since` + 1 says that something is gone, and the page goes on with what there is."""
    await api.relay.database.write(lambda: Event.delete().where(Event.sequence <= 4).execute())
    behind, ahead = await read(api, since=1), await read(api, since=4)

    assert ([event["seq"] for event in behind["events"]], behind["oldest"]) == ([5, 6, 7], 5)
    assert (ahead["oldest"], ahead["next"]) == (5, 7)


async def test_without_events_there_is_nothing_and_nothing_is_missing(api: Api) -> None:
    """`oldest` is one above `head`."""
    body = await read(api)

    standing = await api.read(lambda: outbox.standing(api.organization_id))
    assert standing
    assert body.pop("epoch") == standing.epoch
    assert body == {"success": True, "events": [], "next": 0, "oldest": 1, "head": 0, "gap": None}


@pytest.mark.usefixtures("seven")
async def test_a_sequence_we_never_gave_leads_back_to_the_newest(api: Api) -> None:
    """A reader of a database that was restored is not held up for ever."""
    body = await read(api, since=1_000_000)

    assert (body["events"], body["next"], body["head"]) == ([], 7, 7)


@pytest.mark.usefixtures("seven")
async def test_an_api_key_may_read_events_too(api: Api) -> None:
    """As on the socket; a tool secret may not."""
    with_key = await read(api, api.demo.api_key.get_secret_value())
    with_secret = await get(api, EVENTS, api.demo.tool_secret.get_secret_value())

    assert len(with_key["events"]) == 7
    assert with_secret.status_code == 401


BAD_PARAMETERS: list[dict[str, str]] = [{"since": "-1"}, {"since": "x"}, {"limit": "0"}, {"limit": "1001"}]


async def test_a_parameter_that_makes_no_sense_is_400(api: Api, subtests: pytest.Subtests) -> None:
    """In the envelope of records."""
    for params in BAD_PARAMETERS:
        with subtests.test(params=repr(params)[:60]):
            response = await get(api, EVENTS, **params)

            assert (response.status_code, response.json()["success"]) == (400, False)


@pytest.mark.each_engine
async def test_a_since_beyond_any_sequence_is_answered(api: Api) -> None:
    """The largest number the document admits is a number like any other."""
    assert (await read(api, since=2**63 - 1))["next"] == await api.read(lambda: outbox.head(api.organization_id))


async def test_a_page_of_very_long_events_ends_sooner_and_the_next_goes_on(api: Api) -> None:
    """A thousand of the longest there can be would fill the memory; each page has one at least."""
    data = {"noteId": "b" * 24, "contactId": CONTACT, "type": "note", "note": "x" * (3 << 20), "createdAt": AT}
    for _ in range(5):
        await api.relay.database.write(
            lambda: outbox.append(api.organization_id, [DomainEvent(EventName.NOTE_CREATED, data, contact_id=CONTACT)])
        )
    seen, sizes, since = [], [], 0
    while (body := await read(api, since=since, limit=1000))["events"]:
        seen += [event["seq"] for event in body["events"]]
        sizes.append(len(body["events"]))
        since = body["next"]

    assert seen == [1, 2, 3, 4, 5]
    assert sizes == [1] * 5


@pytest.mark.usefixtures("seven")
async def test_another_epoch_and_a_sequence_beyond_the_head_are_gaps(api: Api) -> None:
    """With the reason, and the page goes on at the head; the epoch of the answer is that of the log."""
    epoch = (await read(api))["epoch"]
    other, beyond, same = [
        await read(api, since=since, epoch=given) for since, given in ((3, "0" * 24), (99, epoch), (3, epoch))
    ]

    assert other["gap"] == {"since": 3, "oldest": 8, "reason": "epoch"}
    assert beyond["gap"] == {"since": 99, "oldest": 8, "reason": "ahead"}
    assert [(page["events"], page["next"], page["epoch"]) for page in (other, beyond)] == [([], 7, epoch)] * 2
    assert ([event["seq"] for event in same["events"]], same["gap"]) == ([4, 5, 6, 7], None)


@pytest.mark.usefixtures("seven")
@pytest.mark.each_engine
async def test_a_page_ends_before_a_hole_and_the_next_says_what_is_missing(api: Api) -> None:
    """Wherever it is; what is missing at the beginning was pruned."""
    await api.relay.database.write(lambda: Event.delete().where(Event.sequence.in_([1, 4, 5])).execute())
    pages, since = [], 0
    for _ in range(3):
        pages.append(await read(api, since=since))
        since = pages[-1]["next"]

    assert [([event["seq"] for event in page["events"]], page["gap"]) for page in pages] == [
        ([2, 3], {"since": 0, "oldest": 2, "reason": "pruned"}),
        ([6, 7], {"since": 3, "oldest": 6, "reason": "hole"}),
        ([], None),
    ]


@pytest.mark.usefixtures("seven")
async def test_filters_are_those_of_the_socket_and_next_moves_on_past_what_they_leave_out(api: Api) -> None:
    """By name, by contact and by conversation."""
    everything = (await read(api))["events"]
    notes = await read(api, events="note_created,transfer_requested")
    nobody = await read(api, contactId="f" * 24)
    conversation = next(one["data"]["conversationId"] for one in everything if "conversationId" in one["data"])
    of_it = await read(api, conversationId=conversation)

    assert {event["event"] for event in notes["events"]} == {"note_created", "transfer_requested"}
    assert (nobody["events"], nobody["next"]) == ([], 7)
    assert of_it["events"] == [one for one in everything if one["data"].get("conversationId") == conversation]
    assert notes["next"] == of_it["next"] == 7


UNKNOWN: list[dict[str, str]] = [{"Since": "1"}, {"event": "call_ended"}, {"events": "call_begun"}, {"events": ""}]


async def test_an_unknown_parameter_or_event_is_refused(api: Api, subtests: pytest.Subtests) -> None:
    """A misspelt filter would otherwise let everything through."""
    for params in [*UNKNOWN, {"wait": "26"}, {"epoch": "x"}, {"contactId": "x"}]:
        with subtests.test(params=repr(params)[:60]):
            response = await get(api, EVENTS, **params)

            assert (response.status_code, response.json()["success"]) == (400, False)


@pytest.mark.each_engine
async def test_a_request_that_waits_is_answered_by_the_next_event_it_wants(api: Api) -> None:
    """Not by one that its filter leaves out."""
    waiting = asyncio.create_task(read(api, since=0, wait=25, events="note_created"))
    await until_waiting(api)
    number = api.demo.contact_phone
    await api.tool("transfer", {})
    await api.tool("create-note", {"phone_number": number, "note": "Asked."})
    page = await waiting

    assert [event["event"] for event in page["events"]] == ["note_created"]
    assert page["next"] == 2


async def test_requests_that_wait_are_answered_when_the_server_stops(api: Api) -> None:
    """With what there is; whoever asks afterwards does not wait."""
    waiting = asyncio.create_task(read(api, since=0, wait=25))
    await until_waiting(api)
    api.relay.new_events.close()

    assert (await waiting)["events"] == (await read(api, since=0, wait=25))["events"] == []


async def test_a_token_that_was_revoked_during_the_wait_is_refused(api: Api) -> None:
    """What was committed meanwhile is not for its owner any more."""
    waiting = asyncio.create_task(get(api, EVENTS, wait=25))
    await until_waiting(api)
    await api.relay.database.write(lambda: User.update(token_version=User.token_version + 1).execute())
    await api.tool("transfer", {})

    assert (await waiting).status_code == 401


async def until_waiting(api: Api) -> None:
    async with patience():
        while not api.relay.new_events._waiting:  # noqa: ASYNC110 - it is asked of the inside, which tells nobody
            await asyncio.sleep(0)
