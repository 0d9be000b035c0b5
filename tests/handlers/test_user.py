import asyncio
import re

import httpx
import pytest
from pydantic import SecretStr

from actions import administer
from domain.principals import Role
from persistence.models import ApiKey
from tests.handlers.test_calls import missed
from tests.support.api import INGEST, Api

pytestmark = pytest.mark.any_engine

KEY, REGENERATE = "/api/user/api-key", "/api/user/api-key/regenerate"


async def user_token(api: Api, email: str = "sam@example.com") -> str:
    """Add a user and return a token of theirs."""
    await administer.create_user(
        api.relay,
        api.organization_id,
        email=email,
        full_name="Sam Field",
        password=SecretStr("correct horse battery staple"),
        role=Role.AGENT,
    )
    return (await administer.issue_token(api.relay, email, 600)).get_secret_value()


async def show(api: Api, token: str) -> httpx.Response:
    return await api.http.get(KEY, headers={"Authorization": f"Bearer {token}"})


def key_in(response: httpx.Response) -> str:
    assert response.status_code == 200
    return str(response.json()["data"]["apiKey"])


async def test_the_key_is_made_on_first_use_and_stays(api: Api) -> None:
    """The answer has the page's envelope, is kept by no cache, and its key opens ingest."""
    token = await user_token(api)
    first, second = await show(api, token), await show(api, token)
    ingested = await api.post(INGEST, missed(), key_in(first))

    assert first.json() == second.json()
    assert first.json().keys() == {"success", "message", "data"}
    assert re.fullmatch(r"tk_live_[0-9a-f]{36}", key_in(first))
    assert first.headers["cache-control"] == "no-store"
    assert ingested.status_code == 201


@pytest.mark.each_engine
async def test_ten_who_ask_at_once_get_the_same_key(api: Api) -> None:
    """There is one key a user, however many processes make it."""
    token = await user_token(api)
    keys = {key_in(answer) for answer in await asyncio.gather(*(show(api, token) for _ in range(10)))}

    assert len(keys) == 1


async def test_a_regenerated_key_replaces_the_one_before_at_once(api: Api) -> None:
    """The old key opens nothing any more, the new one is what is shown from now on."""
    token = await user_token(api)
    old = key_in(await show(api, token))
    regenerated = await api.post(REGENERATE, b"", token)
    new = key_in(regenerated)
    statuses = [(await api.post(INGEST, missed(), key)).status_code for key in (old, new)]

    assert regenerated.headers["cache-control"] == "no-store"
    assert old != new
    assert statuses == [401, 201]
    assert key_in(await show(api, token)) == new


@pytest.mark.each_engine
async def test_regenerating_at_once_leaves_one_key_that_works(api: Api) -> None:
    """Everybody gets an answer, and the last one counts."""
    token = await user_token(api)
    keys = [key_in(one) for one in await asyncio.gather(*(api.post(REGENERATE, b"", token) for _ in range(8)))]
    kept = key_in(await show(api, token))
    statuses = [(await api.post(INGEST, missed(), key)).status_code for key in keys]

    assert kept in keys
    assert len(set(keys)) == 8
    assert sorted(statuses) == [201] + [401] * 7


async def test_everybody_has_a_key_of_their_own(api: Api) -> None:
    """One user's regeneration is nothing to another."""
    sam, kim = await user_token(api), await user_token(api, "kim@example.com")
    of_sam, of_kim = key_in(await show(api, sam)), key_in(await show(api, kim))
    await api.post(REGENERATE, b"", kim)

    assert of_sam != of_kim
    assert key_in(await show(api, sam)) == of_sam


async def test_a_key_is_stored_as_a_digest_and_sealed(api: Api) -> None:
    """Whoever reads the database cannot use it."""
    key = key_in(await show(api, await user_token(api)))
    rows = await api.read(lambda: list(ApiKey.select().dicts()))

    assert not any(key in str(row) or key.removeprefix("tk_live_") in str(row) for row in rows)


@pytest.mark.parametrize("path", [KEY, REGENERATE])
async def test_a_key_does_not_open_the_way_to_itself(api: Api, path: str) -> None:
    """Neither the API key nor the tool secret nor nothing shows or replaces a key; the answer is a documented 401."""
    method = "GET" if path == KEY else "POST"
    before = await api.read(lambda: list(ApiKey.select().dicts()))
    for token in (api.demo.api_key.get_secret_value(), api.demo.tool_secret.get_secret_value(), "nonsense"):
        response = await api.http.request(method, path, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "UNAUTHORIZED"

    assert await api.read(lambda: list(ApiKey.select().dicts())) == before
