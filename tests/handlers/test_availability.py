"""Who is there to take a call: said with a heartbeat, ended without one, and counted for the agent."""

from typing import Any

import httpx
import pytest

from actions import control_access
from actions.availability import ONLINE_SECONDS, end_lapsed
from domain.principals import Role
from domain.times import from_wire, later, now
from persistence.models import UserAvailability
from tests.support.api import Api
from tests.support.reading import user_of

TOOL, MINUTE = "check-availability", 60


async def say(api: Api, token: str, **body: Any) -> httpx.Response:
    return await api.http.put("/api/user/availability", json=body, headers={"Authorization": f"Bearer {token}"})


async def told(api: Api) -> list[tuple[Any, ...]]:
    """Return what the listeners were told: who is online, available, and the counts."""
    fields = ("isOnline", "isAvailable", "onlineCount", "availableCount")
    events = [event["data"] for event in await api.events() if event["name"] == "availability_changed"]
    return [tuple(data[name] for name in fields) for data in events]


async def counted(api: Api) -> tuple[bool, int, int]:
    body = (await api.tool(TOOL, {})).json()
    assert body.keys() == {"agents_available", "available_count", "online_count"}
    return body["agents_available"], body["available_count"], body["online_count"]


async def lapse(api: Api) -> None:
    """Let every heartbeat be over."""
    await api.relay.database.write(lambda: UserAvailability.update(online_until=later(-1)).execute())


async def test_nobody_is_there_unless_somebody_says_so(api: Api) -> None:
    """A user who only signed in takes no calls."""
    assert await counted(api) == (False, 0, 0)


async def test_online_is_not_enough_to_be_available(api: Api) -> None:
    """People are counted as online, and as available if they say so."""
    _, agent = await user_of(api, Role.AGENT)
    await say(api, api.superadmin_token, isAvailable=False)
    one = await counted(api)
    answer = await say(api, agent, isAvailable=True)
    two = await counted(api)
    data = answer.json()["data"]

    assert (one, two) == ((False, 0, 1), (True, 1, 2))
    assert (data["isOnline"], data["isAvailable"]) == (True, True)
    assert 0 < (from_wire(data["onlineUntil"]) - from_wire(now())).total_seconds() <= ONLINE_SECONDS < MINUTE
    assert await told(api) == [(True, False, 1, 0), (True, True, 2, 1)]


async def test_heartbeat_that_does_not_come_ends_by_itself_and_is_told_once(api: Api) -> None:
    """The agent is told the truth at once, the listeners by the next housekeeping."""
    await say(api, api.superadmin_token, isAvailable=True)
    await lapse(api)
    after = await counted(api)
    ended = [await end_lapsed(api.relay), await end_lapsed(api.relay)]

    assert after == (False, 0, 0)
    assert ended == [1, 0]
    assert await told(api) == [(True, True, 1, 1), (False, True, 0, 0)]


async def test_heartbeat_that_changes_nothing_is_no_event(api: Api) -> None:
    """It only lasts longer."""
    first = (await say(api, api.superadmin_token, isAvailable=True)).json()["data"]["onlineUntil"]
    second = (await say(api, api.superadmin_token, isAvailable=True, isOnline=True)).json()["data"]["onlineUntil"]

    assert second >= first
    assert len(await told(api)) == 1
    assert await end_lapsed(api.relay) == 0


async def test_goodbye_ends_it_at_once(api: Api) -> None:
    """And coming back is told again."""
    for body in ({"isAvailable": True}, {"isAvailable": True, "isOnline": False}, {"isAvailable": True}):
        assert (await say(api, api.superadmin_token, **body)).status_code == 200

    assert await told(api) == [(True, True, 1, 1), (False, True, 0, 0), (True, True, 1, 1)]


async def test_user_who_is_disabled_is_not_counted(api: Api) -> None:
    """Whatever the heartbeat said before, and none is accepted after."""
    _, token = await user_of(api, Role.AGENT)
    await say(api, token, isAvailable=True)
    await control_access.disable_user(api.relay, f"agent-{api.organization_id}@example.com")

    assert await counted(api) == (False, 0, 0)
    assert (await say(api, token, isAvailable=True)).status_code == 401


async def test_user_who_is_removed_leaves_nothing(api: Api) -> None:
    """The listeners hear that somebody went."""
    _, token = await user_of(api, Role.AGENT)
    await say(api, token, isAvailable=True)
    await control_access.remove_user(api.relay, f"agent-{api.organization_id}@example.com")

    assert await api.read(lambda: UserAvailability.select().count()) == 0
    assert await told(api) == [(True, True, 1, 1), (False, False, 0, 0)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"isAvailable": "yes"},
        {"isAvailable": None},
        {"isAvailable": True, "isOnline": 1},
        {"isAvailable": True, "transferNumber": "nobody"},
    ],
)
async def test_what_is_no_availability_is_refused(api: Api, body: dict[str, Any]) -> None:
    """And counts nobody."""
    assert (await say(api, api.superadmin_token, **body)).status_code == 400
    assert await counted(api) == (False, 0, 0)
