"""Documents whose structure, not whose length, makes them expensive."""

import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from domain import documents
from persistence.models import Call, ContactNote
from tests.support.api import Api, running_api
from tests.support.audio import mp3_base64

TOOL_VALUES = 1000
INGEST_VALUES = 50_000
Asked = list[tuple[str, bool]]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var") as api:
        yield api


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was read and written as JSON, larger than ordinary, and whether it was in the event loop's thread."""
    seen: Asked = []
    loop = threading.current_thread()

    def noting(verb: Callable[..., Any]) -> Callable[..., Any]:
        def noted(document: Any, *more: Any) -> Any:
            result = verb(document, *more)
            size = len(document) if isinstance(document, bytes | bytearray | str) else len(result)
            if size > 20_000:
                seen.append((verb.__name__, threading.current_thread() is loop))
            return result

        return noted

    for name in ("load", "dump", "canonical"):
        verb = noting(getattr(documents, name))
        for module in ("domain.documents", "actions.record_call", "handlers.wire"):
            monkeypatch.setattr(f"{module}.{name}", verb, raising=False)
    return seen


def call(api: Api, **more: Any) -> dict[str, Any]:
    """Return a call without a recording, which is an object of eight values and what is more."""
    return {
        "direction": "inbound",
        "fromNumber": api.demo.contact_phone,
        "toNumber": api.demo.organization_phone,
        "duration": 1,
        "status": "failed",
        **more,
    }


async def count(api: Api, model: Any) -> int:
    found: int = await api.read(lambda: model.select().count())
    return found


async def test_a_call_of_too_many_values_is_refused_and_nothing_stored(api: Api) -> None:
    """A million empty arrays would be read for seconds, two megabytes as they are."""
    answer = await api.ingest(call(api, metadata={"x": [[]] * 1_000_000}))

    assert answer.status_code == 400
    assert answer.json()["error"] == f"Request body holds more than {INGEST_VALUES} values"
    assert await count(api, Call) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        b'{"x":[%b1]}' % (b"1," * INGEST_VALUES),
        b"{%b}" % b",".join(b'"k%d":0' % number for number in range(INGEST_VALUES)),
        b'{"x":[%b1]}' % (b'"",' * INGEST_VALUES),
        b'{"x":[%b1]}' % (b'{"a":{}},' * (INGEST_VALUES // 2)),
    ],
    ids=["numbers", "members", "texts", "objects"],
)
async def test_values_of_every_kind_count(api: Api, metadata: bytes) -> None:
    """Members of objects, items of arrays, and what is in them."""
    body = json.dumps(call(api)).encode()[:-1] + b',"metadata":' + metadata + b"}"

    assert (await api.ingest(body)).status_code == 400


async def test_commas_and_brackets_in_texts_are_no_values(api: Api) -> None:
    """A transcript may be as talkative, and as oddly quoted, as it likes."""
    odd = 'a, "b", [c], {d}: \\ " ' * 30_000
    turns = [{"role": "user", "message": odd[:20]}] * 1000
    answer = await api.ingest(call(api, summary=odd, transcript=turns))

    assert answer.status_code == 201


async def test_a_transcript_of_a_very_long_call_is_accepted(api: Api) -> None:
    """16,000 turns are half a day of talking without a pause."""
    turns = [{"role": "user", "message": f"turn {number}, and so on"} for number in range(16_000)]
    answer = await api.ingest(call(api, transcript=turns))

    assert answer.status_code == 201


async def test_a_tool_call_of_too_many_values_is_told_in_a_sentence(api: Api) -> None:
    """It reaches the caller's ear like every bad request; one with a thousand values is served."""
    note = {"phone_number": api.demo.contact_phone, "note": "x"}
    refused = await api.tool("create-note", note | {"extra": [0] * TOOL_VALUES})
    served = await api.tool("create-note", note | {"extra": [0] * (TOOL_VALUES - 4)})

    assert (refused.status_code, refused.json()["success"]) == (200, False)
    assert refused.json()["error"] == "Sorry, I could not understand that request."
    assert (served.status_code, served.json()["success"]) == (200, True)
    assert await count(api, ContactNote) == 1


async def test_a_large_call_is_read_and_stored_off_the_event_loop(api: Api, worked: Asked) -> None:
    """Others are served meanwhile, whether it is new, repeated or wrong."""
    turns = [{"role": "user", "message": f"turn {number}"} for number in range(3000)]
    body = call(api, externalCallId="large", transcript=turns, metadata={"x": list(range(5000))})
    first, again = await api.ingest(body), await api.ingest(body)
    other = await api.ingest(body | {"metadata": {"x": list(range(5001))}})
    wrong = await api.ingest(body | {"transcript": [1] * 10_000})

    assert [answer.status_code for answer in (first, again, other, wrong)] == [201, 200, 200, 400]
    assert again.json()["payloadMatches"] is True
    assert other.json()["differingFields"] == ["metadata"]
    assert {verb for verb, _ in worked} == {"load", "dump", "canonical"}
    assert not any(in_loop for _, in_loop in worked)


async def test_a_large_call_is_read_back_off_the_event_loop(api: Api, worked: Asked) -> None:
    """What was stored once may be asked for again and again."""
    turns = [{"role": "user", "message": f"turn {number}"} for number in range(3000)]
    call_id = (await api.ingest(call(api, transcript=turns))).json()["callId"]
    worked.clear()
    answer = await api.http.get(f"/api/calls/{call_id}", headers={"Authorization": f"Bearer {api.superadmin_token}"})

    assert answer.json()["call"]["transcript"] == turns
    assert {verb for verb, _ in worked} == {"load", "dump"}
    assert not any(in_loop for _, in_loop in worked)


async def test_texts_called_recording_elsewhere_count_as_document(api: Api) -> None:
    """Only the member that is the recording may be large; elsewhere its name opens no second door."""
    answer = await api.ingest(call(api, metadata={"recording": "A" * 5_000_000}))

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"recording": "a," * 1_000_000}},
        {"metadata": {"recording": ["x" * 300_000] * 8}},
        {"recording": mp3_base64(700), "metadata": {"recording": "x" * 300_000}},
    ],
    ids=["elsewhere", "several", "beside its own"],
)
async def test_texts_called_recording_elsewhere_are_read_off_the_event_loop(
    api: Api, worked: Asked, more: dict[str, Any]
) -> None:
    """Like any other part of the document; their name does not make them light."""
    answer = await api.ingest(call(api, **more))

    assert answer.status_code == 201, answer.text
    assert {verb for verb, _ in worked} >= {"load", "dump"}
    assert not any(in_loop for _, in_loop in worked)


async def test_a_call_with_a_large_recording_is_light_beside_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most calls have one; they need not wait for the documents of others."""
    heavy: list[object] = []
    run = api.relay.heavy_work.run

    async def noted(owner: object, work: Any) -> Any:
        heavy.append(owner)
        return await run(owner, work)

    monkeypatch.setattr(api.relay.heavy_work, "run", noted)
    answer = await api.ingest(call(api, recording=mp3_base64(7000)))

    assert answer.status_code == 201, answer.text
    assert heavy == []
