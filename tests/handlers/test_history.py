"""Reading calls back: the list, one call, the figures."""

from typing import Any

import pytest

from domain.texts import MAX_SHOWN
from tests.support.api import Api
from tests.support.audio import mp3_base64
from tests.support.reading import OURS, THEIRS, call_row, contact_of, get

pytestmark = pytest.mark.any_engine

HISTORY = "/api/calls/history"
ABSENT = "0" * 24


def at(second: int) -> str:
    return f"2026-05-15T09:{second // 60:02d}:{second % 60:02d}.000Z"


async def ingested(api: Api, **changes: Any) -> dict[str, Any]:
    body = {
        "direction": "inbound",
        "fromNumber": THEIRS,
        "toNumber": OURS,
        "duration": 12,
        "status": "completed",
        "transcript": [{"role": "agent", "message": "Hi."}, {"role": "user", "message": "Hello.", "timestamp": 1.5}],
        "summary": "Greeted.",
        "recording": mp3_base64(),
        "externalCallId": "vendor-1",
        "callStartTime": at(0),
        "metadata": {"campaign": "spring"},
    } | changes
    response = await api.ingest({name: value for name, value in body.items() if value is not None})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def five_calls(api: Api) -> tuple[str, list[str]]:
    """Write five calls, two of which begin at the same moment; return the contact and the ids, newest first."""
    contact_id = await contact_of(api)

    def unit() -> list[str]:
        written = [
            call_row(
                api.organization_id,
                contact_id,
                id=f"{index:024x}",
                started_at=at(min(index, 3)),
                status=["completed", "busy"][index % 2],
                duration=index,
            )
            for index in range(5)
        ]
        return [str(call.id) for call in reversed(written)]

    return contact_id, await api.relay.database.write(unit)


async def ids(api: Api, **params: Any) -> tuple[list[str], int]:
    body = (await get(api, HISTORY, **params)).json()
    return [call["_id"] for call in body["calls"]], body["total"]


async def test_a_call_that_was_ingested_is_read_back_whole(api: Api) -> None:
    """What the caller sent is there, with our ids and whose key pushed it in."""
    made = await ingested(api)
    response = await get(api, f"/api/calls/{made['callId']}")
    call = response.json()["call"]
    user = (await get(api, "/api/auth/verify-token")).json()

    assert response.status_code == 200
    assert {call["_id"], call["callId"]} == {made["callId"]}
    assert (call["contactId"], call["conversationId"]) == (made["contactId"], made["conversationId"])
    assert (call["from"], call["to"], call["direction"], call["status"]) == (THEIRS, OURS, "inbound", "completed")
    assert (call["startedAt"], call["endedAt"], call["duration"]) == (at(0), at(12), 12)
    assert call["transcript"] == [
        {"role": "agent", "message": "Hi."},
        {"role": "user", "message": "Hello.", "timestamp": 1.5},
    ]
    assert call["providerMetadata"] == {"metadata": {"campaign": "spring"}}
    assert call["hasRecording"] is True
    assert call["userId"] == user["user"]["id"]


async def test_a_list_leaves_transcripts_out(api: Api) -> None:
    """They can be long; reading one call brings its own."""
    await ingested(api)
    (call,) = (await get(api, HISTORY)).json()["calls"]

    assert "transcript" not in call
    assert (call["summary"], call["hasRecording"]) == ("Greeted.", True)


@pytest.mark.each_engine
async def test_calls_come_newest_first_and_those_of_one_moment_in_a_fixed_order(api: Api) -> None:
    """The order is by start and then by id, both descending."""
    _, newest_first = await five_calls(api)

    assert await ids(api) == (newest_first, 5)


PAGE_SIZES: list[int] = [1, 2, 3, 5, 200]


@pytest.mark.each_engine
async def test_pages_cut_the_same_list_at_any_offset(api: Api, subtests: pytest.Subtests) -> None:
    """From whichever end a page is counted off, it is the same slice; beyond the end it is empty."""
    _, newest_first = await five_calls(api)
    for limit in PAGE_SIZES:
        with subtests.test(limit=repr(limit)[:60]):
            pages = {offset: (await ids(api, limit=limit, offset=offset))[0] for offset in range(7)}

            assert pages == {offset: newest_first[offset : offset + limit] for offset in range(7)}


@pytest.mark.each_engine
async def test_filters_choose_calls_and_count_them(api: Api) -> None:
    """By contact, status, time and user, alone and together; `to` is not included."""
    contact_id, newest_first = await five_calls(api)
    other = await contact_of(api, "+14165550177", "Kim")

    assert await ids(api, contactId=contact_id) == (newest_first, 5)
    assert await ids(api, contactId=other) == ([], 0)
    assert await ids(api, status="busy") == ([newest_first[1], newest_first[3]], 2)
    assert await ids(api, from_=at(1), to=at(3)) == (newest_first[2:4], 2)
    assert await ids(api, from_="2026-05-15T11:09:03+02:00") == ([], 0)
    assert await ids(api, from_="2026-05-15T11:00:03+02:00", status="completed") == ([newest_first[0]], 1)
    assert await ids(api, userId=ABSENT) == ([], 0)


@pytest.mark.each_engine
async def test_a_call_is_found_by_the_callers_own_id_and_by_whose_key_pushed_it_in(api: Api) -> None:
    """ "Did you get my call?" is one request."""
    first, second = await ingested(api), await ingested(api, externalCallId="vendor-2")
    user_id = (await get(api, "/api/auth/verify-token")).json()["user"]["id"]

    assert await ids(api, externalCallId="vendor-2") == ([second["callId"]], 1)
    assert await ids(api, externalCallId="vendor-3") == ([], 0)
    assert await ids(api, userId=user_id) == ([second["callId"], first["callId"]], 2)


BAD_PARAMETERS: list[dict[str, str]] = [
    {"limit": "0"},
    {"limit": "201"},
    {"offset": "-1"},
    {"status": "lost"},
    {"contactId": "x"},
    {"from_": "yesterday"},
    {"to": "2026-05-15T24:61:00Z"},
    {"externalCallId": ""},
]


async def test_a_parameter_that_makes_no_sense_is_400(api: Api, subtests: pytest.Subtests) -> None:
    """In the envelope of the calls family, with one sentence."""
    for params in BAD_PARAMETERS:
        with subtests.test(params=repr(params)[:60]):
            response = await get(api, HISTORY, **params)

            assert response.status_code == 400
            assert response.json()["success"] is False


async def test_a_call_that_is_not_there_is_404(api: Api) -> None:
    """The same for the call and for its recording."""
    for path in (f"/api/calls/{ABSENT}", f"/api/calls/{ABSENT}/recording"):
        response = await get(api, path)

        assert (response.status_code, response.json()["success"]) == (404, False)


@pytest.mark.each_engine
async def test_statistics_add_up_by_status(api: Api) -> None:
    """Counts, sums and averages, for all time and for a stretch of it; a status without calls is left out."""
    await five_calls(api)
    everything = (await get(api, "/api/calls/statistics")).json()["statistics"]
    stretch = (await get(api, "/api/calls/statistics", startDate=at(1), endDate=at(3))).json()["statistics"]

    assert everything == {
        "totalCalls": 5,
        "totalDuration": 10,
        "averageDuration": 2,
        "byStatus": {
            "completed": {"count": 3, "totalDuration": 6, "avgDuration": 2},
            "busy": {"count": 2, "totalDuration": 4, "avgDuration": 2},
        },
    }
    assert (stretch["totalCalls"], stretch["totalDuration"]) == (2, 3)


@pytest.mark.parametrize(("start", "end"), [("2026-05-15", at(3)), (at(1), "2026-05-15"), ("", at(3))])
async def test_statistics_take_the_moments_of_the_page_and_nothing_else(api: Api, start: str, end: str) -> None:
    """A day alone would leave open whose day it is."""
    refused = await get(api, "/api/calls/statistics", startDate=start, endDate=end)

    assert refused.status_code == 400, refused.text


@pytest.mark.each_engine
async def test_without_calls_statistics_are_zero(api: Api) -> None:
    """Nothing is divided by nothing."""
    statistics = (await get(api, "/api/calls/statistics")).json()["statistics"]

    assert statistics == {"totalCalls": 0, "totalDuration": 0, "averageDuration": 0, "byStatus": {}}


# Texts of any length.


async def test_a_summary_of_any_length_is_cut_in_lists_and_events_and_whole_in_its_call(api: Api) -> None:
    """Otherwise one request for a page would answer with two hundred times the largest body there can be."""
    summary = "ä" * (MAX_SHOWN + 5)
    call_id = (await ingested(api, summary=summary))["callId"]
    fitting = (await ingested(api, summary="x" * MAX_SHOWN, externalCallId="vendor-2", callStartTime=at(1)))["callId"]
    contact_id = (await get(api, f"/api/calls/{call_id}")).json()["call"]["contactId"]
    listed = {one["callId"]: one["summary"] for one in (await get(api, HISTORY)).json()["calls"]}
    timeline = (await get(api, f"/api/contacts/{contact_id}/timeline")).json()["timeline"]
    events = [one["data"]["summary"] for one in await api.events() if one["name"] == "call_ended"]

    cut = "ä" * (MAX_SHOWN - 1) + "…"
    assert (listed[call_id], listed[fitting]) == (cut, "x" * MAX_SHOWN)
    assert [entry["call"]["summary"] for entry in timeline if entry["kind"] == "call"] == ["x" * MAX_SHOWN, cut]
    assert events == [cut, "x" * MAX_SHOWN]
    assert (await get(api, f"/api/calls/{call_id}")).json()["call"]["summary"] == summary


@pytest.mark.parametrize("path", [f"{HISTORY}?limit=200", "/api/events?limit=1000", "/api/contacts/{contact}/timeline"])
async def test_a_page_of_long_texts_is_written_off_the_event_loop(
    api: Api, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread for heavy work; a page of ordinary texts costs no thread."""
    heavy: list[object] = []
    run = api.relay.heavy_work.run

    async def noted(owner: object, work: Any) -> Any:
        heavy.append(owner)
        return await run(owner, work)

    monkeypatch.setattr(api.relay.heavy_work, "run", noted)
    await ingested(api, summary="short")
    contact_id = (await get(api, HISTORY)).json()["calls"][0]["contactId"]
    path = path.format(contact=contact_id)
    assert (await get(api, path)).status_code == 200
    assert heavy == []
    for index in range(14):
        await ingested(api, summary="x" * MAX_SHOWN, externalCallId=f"long-{index}")
    heavy.clear()
    assert (await get(api, path)).status_code == 200
    assert heavy == [api.organization_id] * 2
