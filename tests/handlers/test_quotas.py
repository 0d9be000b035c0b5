"""What an organization may use at most: bytes of recordings, requests a minute."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actions import administer
from actions.quotas import set_own_limits
from domain.identifiers import new_id
from domain.principals import Role
from persistence import quotas as stored
from persistence.models import Call, HeldRecording, Recording
from persistence.quotas import Own
from tests.handlers.test_calls import completed, missed
from tests.support.api import Api, running_api
from tests.support.audio import mp3_base64
from tests.support.reading import get, user_of

USAGE = "/api/organization/usage"


class Clock:
    """Stands for the module `time` of the quotas: the minute does not end while a test runs."""

    seconds = 1_800_000_000.0

    def time(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


async def used(api: Api) -> int:
    return await api.read(lambda: stored.recording_bytes(api.organization_id))


async def sizes(api: Api) -> int:
    """Return the bytes of every recording there is, counted one by one."""
    return await api.read(lambda: sum(row.size for model in (Recording, HeldRecording) for row in model.select()))


def call(number: int, frames: int = 20) -> dict[str, Any]:
    return completed(externalCallId=f"call-{number}", recording=mp3_base64(frames))


async def test_a_recording_beyond_the_quota_is_refused_and_nothing_of_it_stays(tmp_path: Path) -> None:
    """413 in ingest's own envelope: no call, no object, no event; a call without recording is recorded still."""
    async with running_api(tmp_path / "var", org_recording_bytes=12_000) as api:
        statuses, head = [], 0
        for number in range(4):
            head = await api.head()
            statuses.append((await api.ingest(call(number))).status_code)
        answer = await api.ingest(call(9))
        usage = (await get(api, USAGE)).json()["usage"]["recordings"]
        first = statuses.index(413)

        assert statuses == [201] * first + [413] * (4 - first)
        assert first > 0
        assert usage["usedBytes"] <= 12_000
        assert answer.json()["error"] == "The organization has used up its 12000 bytes of recordings"
        assert await api.head() == head
        assert await api.read(lambda: Call.select().count()) == first == len(api.objects())
        assert usage == {"usedBytes": await sizes(api), "limitBytes": 12_000, "isOver": usage["usedBytes"] >= 12_000}
        assert (await api.ingest(missed())).status_code == 201
        assert 'relay_quota_refused_total{quota="recordings"}' in (await api.http.get("/metrics")).text


async def test_erasing_and_retention_give_room_back(api: Api) -> None:
    """What is counted is what is there, whichever way it went."""
    made = (await api.ingest(call(1))).json()
    assert await used(api) == await sizes(api) > 0
    bearer = {"Authorization": f"Bearer {api.superadmin_token}"}
    assert (await api.http.delete(f"/api/contacts/{made['contactId']}", headers=bearer)).status_code == 200

    assert await used(api) == await sizes(api) == 0


async def test_an_organization_that_asks_too_often_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After for whichever token of it, in the operation's envelope; others are not concerned."""
    monkeypatch.setattr("actions.quotas.time", Clock())
    async with running_api(tmp_path / "var", org_requests_per_minute=3) as api:
        other = await administer.create_organization(api.relay, "Other")
        _, theirs = await user_of(api, Role.ADMIN, other.id)
        _, agent = await user_of(api, Role.AGENT)
        with capture_logs() as lines:
            asked = [
                await get(api, "/api/contacts", agent),
                await api.tool("transfer", {"reason": "x"}),
                await api.ingest(missed()),
                await get(api, "/api/contacts", agent),
                await api.ingest(missed()),
            ]
        counted = (await get(api, USAGE, theirs)).json()["usage"]["requests"]
        metrics = (await api.http.get("/metrics")).text

    refusals = [line["refusals"] for line in lines if line["event"] == "quota.exceeded"]
    assert refusals == [1]
    assert [answer.status_code for answer in asked] == [200, 200, 201, 429, 429]
    assert asked[3].json()["error"] == "Too many requests of this organization, please try again later"
    assert 0 < int(asked[3].headers["retry-after"]) <= 60
    assert counted == {"countedThisMinute": 1, "limitPerMinute": 3, "isOver": False}
    assert 'relay_quota_refused_total{quota="requests"} 2.0' in metrics


@pytest.mark.parametrize("counters", ["memory", "database"])
async def test_an_organizations_own_limit_goes_before_everybodys(
    tmp_path: Path, counters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of none; a change reaches the process within seconds."""
    clock = Clock()
    monkeypatch.setattr("actions.quotas.time", clock)
    async with running_api(tmp_path / "var", org_requests_per_minute=1, request_counters=counters) as api:
        await set_own_limits(api.relay, api.organization_id, Own(None, 0, None))
        free = {(await api.ingest(missed(externalCallId=new_id()))).status_code for _ in range(4)}
        await set_own_limits(api.relay, api.organization_id, Own(None, 2, None))
        clock.seconds += 6
        statuses = [(await api.ingest(missed(externalCallId=new_id()))).status_code for _ in range(7)]

    assert free == {201}
    assert statuses[-1] == 429
    assert statuses == sorted(statuses)


async def test_the_usage_is_shown_to_administrators_of_the_organization(api: Api) -> None:
    """Everybody's limits are generous; a limit of none is null."""
    await set_own_limits(api.relay, api.organization_id, Own(0, None, 7))
    _, admin = await user_of(api, Role.ADMIN)
    _, agent = await user_of(api, Role.AGENT)
    usage = (await get(api, USAGE, admin)).json()["usage"]

    assert usage["recordings"] == {"usedBytes": 0, "limitBytes": None, "isOver": False}
    assert usage["requests"]["limitPerMinute"] == 60_000
    assert usage["sockets"] == {"open": 0, "limit": 7, "isOver": False}
    assert (await get(api, USAGE, agent)).status_code == 401
