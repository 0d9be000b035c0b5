"""When an organization is open: who may say so, what is refused, and what the agent is told."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from domain.business_hours import DAYS, zone
from domain.principals import Role
from persistence.models import AuditEntry
from tests.support.api import Api
from tests.support.reading import get, user_of

TOOL = "check-business-hours"
NINE_TO_FIVE = {"enabled": True, "start": "09:00", "end": "17:00"}
NEVER = {day: {"enabled": False} for day in DAYS}
ALWAYS = {day: {"enabled": True, "start": "00:00", "end": "00:00"} for day in DAYS}


def path(api: Api, organization_id: str | None = None) -> str:
    return f"/api/organizations/{organization_id or api.organization_id}/business-hours"


async def put(api: Api, body: Any, token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or api.superadmin_token}"}
    return await api.http.put(path(api), json=body, headers=headers)


async def saved(api: Api, **body: Any) -> dict[str, Any]:
    response = await put(api, body)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def is_open(api: Api) -> bool:
    return bool((await api.tool(TOOL, {})).json()["is_open"])


async def test_default_is_monday_to_friday_from_nine_to_five(api: Api) -> None:
    """Of an organization that never said anything else."""
    body = (await get(api, path(api))).json()

    assert body == {
        "success": True,
        "data": {
            "timezone": "UTC",
            "businessHours": {day: NINE_TO_FIVE | {"enabled": day not in ("saturday", "sunday")} for day in DAYS},
            "isDefault": True,
            "holidays": [],
            "exceptionalHours": [],
            "allowUserBusinessHoursOverride": False,
        },
    }


async def test_only_what_is_given_changes(api: Api) -> None:
    """Each field by itself, and null puts the default schedule back."""
    holidays = [{"date": "2026-12-25", "label": "Christmas Day"}]
    exceptional = [{"date": "2026-12-24", "closed": False, "start": "09:00", "end": "13:00", "label": "Christmas Eve"}]
    week = {"monday": NINE_TO_FIVE, "friday": NINE_TO_FIVE | {"end": "15:00"}}
    await saved(api, timezone="America/New_York")
    await saved(api, businessHours=week)
    await saved(api, holidays=holidays)
    await saved(api, exceptionalHours=exceptional, allowUserBusinessHoursOverride=True)
    everything = (await get(api, path(api))).json()["data"]
    cleared = await saved(api, businessHours=None)

    assert everything == {
        "timezone": "America/New_York",
        "businessHours": week,
        "isDefault": False,
        "holidays": holidays,
        "exceptionalHours": exceptional,
        "allowUserBusinessHoursOverride": True,
    }
    assert cleared["isDefault"]
    assert cleared["businessHours"]["monday"] == NINE_TO_FIVE
    assert (cleared["timezone"], cleared["holidays"]) == ("America/New_York", holidays)


async def test_hours_that_are_left_out_are_nine_to_five(api: Api) -> None:
    """Of a day that is enabled, and of an exceptional date that is not closed."""
    data = await saved(api, businessHours={"monday": {"enabled": True}}, exceptionalHours=[{"date": "2026-12-24"}])

    assert data["businessHours"] == {"monday": NINE_TO_FIVE}
    assert data["exceptionalHours"] == [{"date": "2026-12-24", "closed": False, "start": "09:00", "end": "17:00"}]


@pytest.mark.parametrize(
    "body",
    [
        {"timezone": "Mars/Olympus"},
        {"timezone": "america/toronto"},
        {"timezone": "../zones"},
        {"timezone": None},
        {"businessHours": {"monday": {"enabled": True, "start": "9:00", "end": "17:00"}}},
        {"businessHours": {"monday": {"enabled": True, "start": "09:00", "end": "24:00"}}},
        {"businessHours": {"Monday": NINE_TO_FIVE}},
        {"businessHours": {"monday": {"start": "09:00", "end": "17:00"}}},
        {"holidays": [{"date": "2026-02-29"}]},
        {"holidays": [{"date": "25.12.2026"}]},
        {"holidays": [{"date": "2026-12-25", "label": "x" * 101}]},
        {"exceptionalHours": [{"date": "2026-12-24", "start": "25:00"}]},
        {"exceptionalHours": [{"date": "2026-12-24"}] * 401},
    ],
)
async def test_what_is_no_schedule_is_refused_and_changes_nothing(api: Api, body: dict[str, Any]) -> None:
    """400 that names the problem."""
    before = (await get(api, path(api))).json()
    response = await put(api, {"allowUserBusinessHoursOverride": True} | body)

    assert response.status_code == 400, response.text
    assert response.json()["success"] is False
    assert (await get(api, path(api))).json() == before


@pytest.mark.parametrize(("role", "status"), [(Role.AGENT, 401), (Role.ADMIN, 200)])
async def test_hours_are_for_administrators(api: Api, role: Role, status: int) -> None:
    """Reading and writing; what is written is in the audit log, by name and without values."""
    user_id, token = await user_of(api, role)
    read, written = await get(api, path(api), token), await put(api, {"timezone": "Europe/Berlin"}, token)
    entries = await api.read(lambda: list(AuditEntry.select().where(AuditEntry.action == "hours.changed")))

    assert (read.status_code, written.status_code) == (status, status)
    assert [entry.user_id for entry in entries] == ([user_id] if status == 200 else [])
    assert all(entry.details == '{"fields":["timezone"]}' for entry in entries)


async def test_another_organization_is_not_found(api: Api) -> None:
    """For a superadmin too."""
    headers = {"Authorization": f"Bearer {api.superadmin_token}"}
    other = path(api, "0" * 24)
    answers = [await get(api, other), await api.http.put(other, json={"timezone": "UTC"}, headers=headers)]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_agent_is_told_whether_it_is_open_and_what_the_clock_shows(api: Api) -> None:
    """In the organization's zone, with its name."""
    await saved(api, timezone="Asia/Kathmandu", businessHours=ALWAYS)
    before = datetime.now(UTC).astimezone(zone("Asia/Kathmandu"))
    body = (await api.tool(TOOL, {"conversation_id": "conv_1", "called_number": "+12362320246"})).json()
    times = {f"{before + timedelta(minutes=more):%A %H:%M}" for more in (0, 1)}

    assert body.keys() == {"is_open", "current_time", "timezone", "organization_name"}
    assert (body["is_open"], body["timezone"], body["organization_name"]) == (True, "Asia/Kathmandu", "Demo")
    assert re.fullmatch(r"[A-Z][a-z]+day [0-2][0-9]:[0-5][0-9]", body["current_time"])
    assert body["current_time"] in times


async def test_agent_hears_of_every_change_at_once(api: Api) -> None:
    """The week, a holiday, and a date with hours of its own."""
    today = datetime.now(UTC).date()
    around = [(today + timedelta(days=away)).isoformat() for away in (-1, 0, 1)]
    said = []
    for change in (
        {"businessHours": NEVER},
        {"businessHours": ALWAYS},
        {"holidays": [{"date": day} for day in around]},
        {"exceptionalHours": [{"date": day, "closed": False, "start": "00:00", "end": "00:00"} for day in around]},
        {"exceptionalHours": [{"date": day, "closed": True} for day in around]},
    ):
        await saved(api, **change)
        said.append(await is_open(api))

    assert said == [False, True, False, True, False]


@pytest.mark.parametrize("tool", [TOOL, "check-availability"])
@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b'{"called_id":7}', 400), (b"{}", 200)])
async def test_answer_that_has_no_words_is_never_a_guess(api: Api, tool: str, body: bytes, status: int) -> None:
    """A body that cannot be read is 400: `false` would be taken for a fact."""
    response = await api.tool(tool, body)

    assert response.status_code == status
    assert ("is_open" in response.text or "agents_available" in response.text) is (status == 200)
