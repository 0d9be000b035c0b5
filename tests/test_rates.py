"""Who asks too often is told when to come back, in the words of the operation that was asked."""

from pathlib import Path
from typing import Any

import pytest

from actions.rates import Rates, _Windows, in_database, in_memory
from app import open_relay
from config import load_settings
from domain.errors import RateLimited
from domain.principals import Principal, TokenKind
from persistence.database import Database, open_database
from tests.support.api import Api, engine_of_api, running_api, unwritable
from tests.support.contract import CONTRACT

NOTE = {"phone_number": "+14165550100", "note": "Hello."}


def said(answer: Any) -> list[object]:
    return [answer.status_code, int(answer.headers["retry-after"]) in range(1, 61)]


async def note(api: Api, index: int) -> int:
    return (await api.tool("create-note", NOTE | {"note": f"note {index}"})).status_code


@pytest.mark.parametrize("counters", ["memory", "database"])
async def test_a_caller_who_asks_too_often_is_told_when_to_come_back(
    tmp_path: Path, engine: str, counters: str
) -> None:
    """The count is the caller's own: others are served meanwhile."""
    engine_of_api.set(engine)
    async with running_api(tmp_path, requests_per_minute_per_caller=2, request_counters=counters) as api:
        statuses = [await note(api, index) for index in range(2)]
        refused = await api.tool("create-note", NOTE)
        other = await api.configure({"sinchEstTrunkDomain": "example.sip.sinch.com"})

    assert statuses == [200, 200]
    assert said(refused) == [429, True]
    assert refused.json() == {"success": False, "error": "Too many requests, please try again later"}
    assert other.status_code == 200


async def test_an_address_that_asks_too_often_is_refused_before_its_token_is_looked_at(tmp_path: Path) -> None:
    """Guessing tokens is counted like anything else."""
    async with running_api(tmp_path, requests_per_minute_per_address=3) as api:
        guesses = [(await api.post("/api/calls/ingest", {}, f"tk_live_{index}")).status_code for index in range(3)]
        refused = await api.ingest({})

    assert guesses == [401, 401, 401]
    assert said(refused) == [429, True]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/" + "-eyJ" * 10_000, 404),
        ("GET", "/api/calls/ingest", 405),
        ("OPTIONS", "/api/calls/ingest", 204),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs/", 200),
        ("GET", "/live", 200),
        ("POST", "/live", 405),
    ],
    ids=lambda given: str(given)[:24],
)
async def test_every_request_counts_against_its_address_whatever_its_path(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    """Three of them use up three; the refusal is JSON, carries an id, and an operation says it in its own words."""
    async with running_api(tmp_path, requests_per_minute_per_address=3) as api:
        answers = [await api.http.request(method, path) for _ in range(4)]
        elsewhere = await api.tool("create-note", NOTE)

    assert [answer.status_code for answer in answers] == [status] * 3 + [429]
    assert said(answers[3]) == [429, True]
    assert answers[3].headers["content-type"] == "application/json"
    assert answers[3].headers["x-request-id"]
    assert answers[3].json()["success"] is False
    assert elsewhere.json() == {"success": False, "error": "Too many requests, please try again later"}


async def test_a_preflight_counts_like_every_other_request(tmp_path: Path) -> None:
    """It is answered without a token and before routing, whatever its path; the page can read that it was too much."""
    headers = {"Origin": "https://relay.example", "Access-Control-Request-Method": "POST"}
    async with running_api(tmp_path, requests_per_minute_per_address=3) as api:
        paths = ("/api/calls/ingest", "/api/nowhere", "/api/calls/ingest", "/api/calls/ingest")
        answers = [await api.http.options(path, headers=headers) for path in paths]

    assert [answer.status_code for answer in answers] == [204, 204, 204, 429]
    assert said(answers[3]) == [429, True]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {"https://relay.example"}
    assert [answer.content for answer in answers[:3]] == [b""] * 3
    assert answers[3].json()["success"] is False


async def test_requests_are_counted_in_memory_while_the_database_cannot_count(tmp_path: Path) -> None:
    """What needs no database, such as whether the process lives, is still answered; and the limit still holds."""
    settings = {"requests_per_minute_per_address": 3, "request_counters": "database"}
    async with running_api(tmp_path, **settings) as api:
        with unwritable(api):
            answers = [await api.http.get("/healthz") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_every_operation_documents_that_it_may_be_asked_too_often() -> None:
    """No client is surprised by the status, or by the shape of its body."""

    assert [one.key for one in CONTRACT.operations if one.response(429) is None] == []


async def test_processes_count_together_in_the_database(database: Database, database_url: str) -> None:
    """What one of them let through counts for the other."""
    elsewhere = open_database(database_url)
    here, there = Rates(2, 0, in_database(database)), Rates(2, 0, in_database(elsewhere))
    await here.admit_address("192.0.2.1")
    await there.admit_address("192.0.2.1")

    with pytest.raises(RateLimited):
        await here.admit_address("192.0.2.1")
    await there.admit_address("192.0.2.2")
    elsewhere.close()


async def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    """Whoever has one of them usually has all."""
    rates = Rates(per_address=1)
    await rates.admit_address("2001:db8::1")

    with pytest.raises(RateLimited):
        await rates.admit_address("2001:db8::2")
    await rates.admit_address("2001:db8:0:1::1")


async def test_every_user_and_every_kind_of_token_has_a_rate_of_its_own() -> None:
    """A colleague's script locks nobody out, nor does one's own API key lock one out of the desk."""
    rates = Rates(per_caller=1)
    everybody = [
        Principal(TokenKind.JWT, "organization", "sam"),
        Principal(TokenKind.JWT, "organization", "kim"),
        Principal(TokenKind.API_KEY, "organization", "sam"),
        Principal(TokenKind.TOOL_SECRET, "organization"),
        Principal(TokenKind.TOOL_SECRET, "another"),
    ]
    for principal in everybody:
        await rates.admit_caller(principal)
    for principal in everybody:
        with pytest.raises(RateLimited):
            await rates.admit_caller(principal)


@pytest.mark.parametrize(("counters", "is_shared"), [("database", True), ("memory", False)])
async def test_the_setting_says_whether_processes_count_together(
    tmp_path: Path, counters: str, is_shared: bool
) -> None:
    """Two relays on one folder are two processes."""
    settings = load_settings(
        _env_file=None, data_dir=tmp_path, requests_per_minute_per_address=1, request_counters=counters
    )
    database = open_database(settings.resolved_database_url)
    database.migrate()
    database.close()
    async with open_relay(settings) as here, open_relay(settings) as there:
        await here.rates.admit_address("192.0.2.1")
        if is_shared:
            with pytest.raises(RateLimited):
                await there.rates.admit_address("192.0.2.1")
        else:
            await there.rates.admit_address("192.0.2.1")


class Clock:
    """Stands for the module `time`."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


async def test_counters_in_memory_end_a_minute_after_their_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on its own, whenever it began; who is refused is told how long is left."""
    clock = Clock()
    monkeypatch.setattr("actions.rates.time", clock)
    count = in_memory()
    assert [await count("early", 2) for _ in range(3)] == [None, None, 60]
    clock.seconds += 45
    assert [await count("late", 1), await count("late", 1), await count("early", 2)] == [None, 60, 15]
    clock.seconds += 15
    assert [await count("early", 2), await count("late", 1)] == [None, 45]
    clock.seconds += 44
    assert await count("late", 1) == 1
    clock.seconds += 1
    assert await count("late", 1) is None


async def test_counters_in_memory_that_ended_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with ever new addresses takes no memory for good."""
    clock, windows = Clock(), _Windows()
    monkeypatch.setattr("actions.rates.time", clock)
    for number in range(100):
        windows.count(f"address {number}", 1)
        clock.seconds += 30

    assert len(windows._newer) + len(windows._older) <= 4
