"""Several API keys for a user: names, kinds, ends, last use, renewal with an overlap, revocation."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from actions.api_keys import MOST_PER_USER
from actions.authenticate import identify, revoked
from domain.errors import Unauthenticated
from domain.identifiers import new_id
from domain.principals import Role
from domain.times import from_wire, later, now
from persistence.models import ApiKey
from tests.handlers.test_calls import missed
from tests.handlers.test_user import REGENERATE, key_in, show, user_token
from tests.support.api import INGEST, Api
from tests.support.contract import CONTRACT
from tests.support.reading import user_of
from tests.support.waiting import until

KEYS = "/api/user/api-keys"
EVENTS = "/api/events"


async def create(api: Api, token: str, **body: Any) -> httpx.Response:
    return await api.post(KEYS, body, token)


async def send(api: Api, method: str, path: str, token: str) -> httpx.Response:
    return await api.http.request(method, path, headers={"Authorization": f"Bearer {token}"})


async def listed(api: Api, token: str) -> list[dict[str, Any]]:
    answer = await send(api, "GET", KEYS, token)
    assert answer.status_code == 200
    keys: list[dict[str, Any]] = answer.json()["data"]["apiKeys"]
    return keys


async def ingests(api: Api, key: str) -> int:
    return (await api.post(INGEST, missed(externalCallId=new_id()), key)).status_code


async def noted(api: Api) -> None:
    """Wait until every use so far is noted."""
    await api.relay.background.settle()


async def listens(api: Api, key: str) -> bool:
    try:
        await identify(api.relay, key)
    except Unauthenticated:
        return False
    return True


async def test_a_named_key_is_shown_once_and_listed_without_its_secret(api: Api) -> None:
    """Beside the first one, which stays what the published operation shows."""
    token = await user_token(api)
    first = key_in(await show(api, token))
    made = await create(api, token, name="call centre", kind="ingest")
    secret = made.json()["data"]["apiKey"]
    keys = await send(api, "GET", KEYS, token)

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert [(key["name"], key["kind"]) for key in await listed(api, token)] == [
        ("default", "both"),
        ("call centre", "ingest"),
    ]
    assert secret not in keys.text
    assert first not in keys.text
    assert key_in(await show(api, token)) == first
    assert not any(secret in str(row) for row in await api.read(lambda: list(ApiKey.select().dicts())))


@pytest.mark.parametrize(
    ("kind", "expected"), [("ingest", (201, False, 401)), ("listen", (401, True, 200)), ("both", (201, True, 200))]
)
async def test_a_key_opens_what_its_kind_says(api: Api, kind: str, expected: tuple[int, bool, int]) -> None:
    """Ingest, the socket, and the same events over HTTP; for something else it is refused like one unknown."""
    token = await user_token(api)
    secret = (await create(api, token, name="one", kind=kind)).json()["data"]["apiKey"]
    refused, unknown = await api.post(INGEST, missed(), secret), await api.post(INGEST, missed(), "tk_live_none")
    events = await send(api, "GET", EVENTS, secret)

    assert (refused.status_code, await listens(api, secret), events.status_code) == expected
    assert refused.status_code == 201 or refused.content == unknown.content
    assert events.status_code == 200 or events.json() == (await send(api, "GET", EVENTS, "tk_live_none")).json()


async def test_a_key_for_listening_opens_no_other_operation(api: Api) -> None:
    """Whatever the document serves and asks a token for."""
    token = await user_token(api)
    secret = (await create(api, token, name="wallboard", kind="listen")).json()["data"]["apiKey"]
    closed = [
        one for one in CONTRACT.operations if any(_takes_bearer(scheme) for one_of in one.security for scheme in one_of)
    ]
    opened = set()
    for operation in closed:
        path = re.sub(r"\{\w+\}", "c" * 24, operation.path)
        if (await send(api, operation.method.upper(), path, secret)).status_code != 401:
            opened.add(operation.path)

    assert len(closed) > 20
    assert opened == {EVENTS}


def _takes_bearer(scheme: str) -> bool:
    return bool(CONTRACT.served["components"]["securitySchemes"][scheme].get("scheme") == "bearer")


async def test_a_key_for_listening_may_wait_for_events(api: Api) -> None:
    """It is looked at again after the wait, as a key for listening."""
    token = await user_token(api)
    secret = (await create(api, token, name="wallboard", kind="listen")).json()["data"]["apiKey"]
    head = await api.head()
    waiting = asyncio.create_task(send(api, "GET", f"{EVENTS}?since={head}&wait=25", secret))
    await until(lambda: api.relay.new_events._waiting, "the request waits")
    assert (await api.ingest(missed())).status_code == 201
    answer = await waiting

    assert answer.status_code == 200
    assert answer.json()["next"] > head


async def test_a_key_ends_by_itself(api: Api) -> None:
    """Its name is free then, a listener is told until when it may stay, and an end in the past is refused."""
    token = await user_token(api)
    end = later(3600)
    secret = (await create(api, token, name="trial", expiresAt=end)).json()["data"]["apiKey"]
    before = await ingests(api, secret)
    principal = await identify(api.relay, secret)
    await api.relay.database.write(lambda: ApiKey.update(expires_at=later(-1)).where(ApiKey.name == "trial").execute())

    assert (before, await ingests(api, secret), await listens(api, secret)) == (201, 401, False)
    assert principal.expires_at == from_wire(end).timestamp()
    assert await revoked(api.relay, [principal]) == [principal]
    assert await listed(api, token) == []
    assert (await create(api, token, name="trial")).status_code == 201
    past = await create(api, token, name="past", expiresAt=later(-1))
    assert (past.status_code, past.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


async def test_a_renewed_key_may_keep_the_secret_before_for_an_overlap(api: Api) -> None:
    """Both work until the overlap is over; without one the earlier secret ends at once."""
    token = await user_token(api)
    made = (await create(api, token, name="crm", kind="both")).json()["data"]
    path = f"{KEYS}/{made['key']['id']}/renew"
    renewed = (await send(api, "POST", f"{path}?overlapMinutes=60", token)).json()["data"]
    old, new = made["apiKey"], renewed["apiKey"]
    listening = await identify(api.relay, old)
    during = [await ingests(api, key) for key in (old, new)]
    assert await revoked(api.relay, [listening]) == []
    await api.relay.database.write(
        lambda: ApiKey.update(previous_expires_at=later(-1)).where(ApiKey.name == "crm").execute()
    )
    after = [await ingests(api, key) for key in (old, new)]
    again = (await send(api, "POST", path, token)).json()["data"]

    assert (during, after) == ([201, 201], [401, 201])
    assert await revoked(api.relay, [listening]) == [listening]
    assert renewed["key"]["previousExpiresAt"] > later(3500)
    assert again["key"]["previousExpiresAt"] is None
    assert [await ingests(api, key) for key in (new, again["apiKey"])] == [401, 201]
    assert {renewed["key"][name] for name in ("name", "kind")} == {"crm", "both"}


async def test_the_first_key_may_be_regenerated_with_an_overlap(api: Api) -> None:
    """As the vendor rotates its own; without the parameter the old one stops at once."""
    token = await user_token(api)
    first = key_in(await show(api, token))
    second = key_in(await api.post(f"{REGENERATE}?overlapMinutes=5", b"", token))
    both = [await ingests(api, key) for key in (first, second)]
    third = key_in(await api.post(REGENERATE, b"", token))

    assert both == [201, 201]
    assert [await ingests(api, key) for key in (first, second, third)] == [401, 401, 201]
    assert (await api.post(f"{REGENERATE}?overlapMinutes=-1", b"", token)).status_code == 400


async def test_a_revoked_key_is_gone_at_once_and_the_others_stay(api: Api) -> None:
    """Revoking it again, or another user's, finds nothing."""
    token = await user_token(api)
    one, other = [(await create(api, token, name=name)).json()["data"] for name in ("one", "other")]
    path = f"{KEYS}/{one['key']['id']}"
    _, stranger = await user_of(api, Role.SUPERADMIN)
    foreign = [
        (await send(api, "DELETE", path, stranger)).status_code,
        (await send(api, "POST", f"{path}/renew", stranger)).status_code,
    ]
    gone = [(await send(api, "DELETE", path, token)).status_code for _ in range(2)]

    assert (foreign, gone) == ([404, 404], [200, 404])
    assert [await ingests(api, made["apiKey"]) for made in (one, other)] == [401, 201]


async def test_the_last_use_of_a_key_is_kept_once_a_minute(api: Api) -> None:
    """Not with every request, and never at the price of a request."""
    token = await user_token(api)
    secret = (await create(api, token, name="crm")).json()["data"]["apiKey"]
    assert (await listed(api, token))[0]["lastUsedAt"] is None
    before = now()
    await ingests(api, secret)
    await noted(api)
    first = (await listed(api, token))[0]["lastUsedAt"]
    await ingests(api, secret)
    second = (await listed(api, token))[0]["lastUsedAt"]
    api.relay.noted_keys.clear()
    earlier = later(-61)
    await api.relay.database.write(lambda: ApiKey.update(last_used_at=earlier).where(ApiKey.name == "crm").execute())
    await ingests(api, secret)
    await noted(api)
    third = (await listed(api, token))[0]["lastUsedAt"]

    assert before <= first == second <= third
    assert third > earlier


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "\x1b[2J"}, {"name": "default"}, {"name": "a", "kind": "all"}, {"name": 5}]
)
async def test_a_key_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    """400 in the envelope of accounts, and there is no key."""
    token = await user_token(api)
    refused = await create(api, token, **body)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "VALIDATION_ERROR"
    assert await listed(api, token) == []


async def test_a_name_is_taken_once_and_keys_have_a_number(api: Api) -> None:
    """Per user: another user may have the same name."""
    token = await user_token(api)
    statuses = [(await create(api, token, name="crm")).status_code for _ in range(2)]
    for n in range(MOST_PER_USER - 1):
        assert (await create(api, token, name=f"key {n}")).status_code == 201
    too_many = await create(api, token, name="one more")
    _, other = await user_of(api, Role.AGENT)

    assert (statuses, too_many.status_code) == ([201, 400], 400)
    assert (await create(api, other, name="crm")).status_code == 201
