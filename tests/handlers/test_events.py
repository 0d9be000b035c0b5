"""Reading the outbox over HTTP."""

import json
from typing import Any

import pytest

from domain.events import Event as DomainEvent
from domain.events import EventName
from persistence import outbox
from persistence.models import Event
from tests.support import published_events
from tests.support.api import Api
from tests.support.reading import get

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

    assert body.pop("epoch") == (await api.read(lambda: outbox.standing(api.organization_id))).epoch
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
