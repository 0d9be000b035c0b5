"""How many recordings are fetched at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from actions.administer import api_key_of, create_organization, create_user
from domain.principals import Role
from tests.support.api import INGEST, Api, running_api
from tests.support.audio import mp3
from tests.support.faulty_http import FakeVendor, Fault, Received, Reply


class RecordingHost(FakeVendor):
    """A call system's recordings."""

    def answer(self, _: Received) -> Reply:
        return Reply(200, body=mp3(60), headers={"Content-Type": "audio/mpeg"})


@pytest.fixture
async def host() -> AsyncIterator[RecordingHost]:
    async with RecordingHost() as host:
        host.behave(Fault.HANG_AFTER_READING, always=True)
        yield host
        host.release()


def push(api: Api, host: RecordingHost, key: str) -> "asyncio.Future[httpx.Response]":
    call: dict[str, Any] = {
        "direction": "inbound",
        "fromNumber": "+14165550100",
        "toNumber": "+12362320246",
        "duration": 1,
        "status": "completed",
        "transcript": [],
        "summary": "x",
        "recording": f"{host.url}/1.mp3",
    }
    return asyncio.ensure_future(api.post(INGEST, call, key))


async def another_key(api: Api) -> str:
    """Return an API key of an organization of its own."""
    name, password = token_hex(4), SecretStr(token_hex(16))
    organization = await create_organization(api.relay, name)
    user = await create_user(
        api.relay, organization.id, email=f"{name}@another.example", full_name="A", password=password, role=Role.AGENT
    )
    return (await api_key_of(api.relay, organization.id, user.id)).get_secret_value()


async def insist_on_refusal(pushed: "asyncio.Future[httpx.Response]") -> None:
    answer = await pushed
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["success"] is False


async def test_an_organization_has_so_many_downloads_at_once(tmp_path: Path, host: RecordingHost) -> None:
    """One more waits a while and is asked to come back; another organization's is fetched meanwhile."""
    limits = {"max_downloads_per_organization": 2, "max_downloads": 10, "download_wait_seconds": 0.5}
    async with running_api(tmp_path / "var", **limits) as api:
        key = api.demo.api_key.get_secret_value()
        under_way = [push(api, host, key) for _ in range(2)]
        await host.until_received(2)
        await insist_on_refusal(push(api, host, key))
        under_way.append(push(api, host, await another_key(api)))
        await host.until_received(3)
        host.release()
        answers = await asyncio.gather(*under_way)
        later = await push(api, host, key)

    assert [answer.status_code for answer in answers] == [201] * 3
    assert later.status_code == 201


async def test_all_organizations_together_have_so_many_downloads_at_once(tmp_path: Path, host: RecordingHost) -> None:
    """A download takes two descriptors, whoever asked for it."""
    limits = {"max_downloads_per_organization": 2, "max_downloads": 2, "download_wait_seconds": 0.5}
    async with running_api(tmp_path / "var", **limits) as api:
        under_way = [push(api, host, await another_key(api)) for _ in range(2)]
        await host.until_received(2)
        await insist_on_refusal(push(api, host, await another_key(api)))
        host.release()
        answers = await asyncio.gather(*under_way)

    assert [answer.status_code for answer in answers] == [201] * 2


async def test_a_download_that_waits_is_fetched_when_another_ends(tmp_path: Path, host: RecordingHost) -> None:
    """The limit makes them wait for each other before it refuses any."""
    async with running_api(tmp_path / "var", max_downloads_per_organization=1, download_wait_seconds=30) as api:
        key = api.demo.api_key.get_secret_value()
        pushed = [push(api, host, key) for _ in range(3)]
        await host.until_received(1)
        host.release()
        answers = await asyncio.gather(*pushed)

    assert [answer.status_code for answer in answers] == [201] * 3
