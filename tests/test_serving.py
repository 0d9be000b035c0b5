"""What the processes do with their settings, and what the API does by itself."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from domain.times import later
from persistence import contacts, conversations, organizations
from persistence.database import Database, open_database
from persistence.models import Message
from tests.support.ports import free_port
from tests.support.processes import Running, accepts, environment, run, running
from tests.support.waiting import PATIENCE_SECONDS

OURS, THEIRS = "+12362320246", "+14165550100"
PAGE = Origin("https://desk.example")


@dataclass(frozen=True)
class House:
    """An installation whose API died while it sent a text, started again."""

    env: dict[str, str]
    database: Database
    api: Running
    broadcaster: Running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("serving")
    env = environment(
        folder, request_head_seconds=0.5, request_body_seconds=3600, realtime_allowed_origins=PAGE, api_host="127.0.0.1"
    )
    assert run("migrate", env=env, folder=folder).returncode == 0
    database = open_database(f"sqlite:///{folder}/var/relay.db")
    asyncio.run(database.write(_leave_a_text_queued))
    with running("serve", env=env, folder=folder) as api, running("broadcast", env=env, folder=folder) as broadcaster:
        for process, port in ((api, "API_PORT"), (broadcaster, "REALTIME_PORT")):
            process.until(lambda port=port: accepts(env[port]))  # type: ignore[misc]
        yield House(env, database, api, broadcaster)
    database.close()


def _leave_a_text_queued() -> None:
    organization = organizations.add("Acme", "CA")
    contact = contacts.upsert(organization.id, THEIRS, "Alex")
    thread = conversations.find_or_create(organization.id, contact.id, "sms", OURS)
    Message.create(
        organization=organization,
        contact=contact,
        conversation=thread,
        direction="outbound",
        author="ai",
        text="Here is the link.",
        from_number=OURS,
        to_number=THEIRS,
        status="queued",
        provider="console",
        created_at=later(-3600),
    )


def test_a_text_whose_sender_died_is_closed_by_the_next_start(house: House) -> None:
    """Nobody has to ask for it, and it is not sent."""

    def status() -> str:
        return asyncio.run(house.database.read(lambda: str(Message.get().status)))

    house.api.until(lambda: status() != "queued")

    assert status() == "unknown"


def test_a_connection_without_a_head_has_the_time_that_was_set_for_heads(house: House) -> None:
    """And not the time of bodies, which is an hour here."""
    with socket.create_connection(("127.0.0.1", int(house.env["API_PORT"])), timeout=PATIENCE_SECONDS) as silent:
        assert silent.recv(1) == b""


def test_the_broadcaster_lets_in_the_pages_that_were_set(house: House) -> None:
    """Others are closed before a token is asked for."""
    url = f"ws://127.0.0.1:{house.env['REALTIME_PORT']}/v1"
    with connect(url, origin=Origin("https://elsewhere.example"), proxy=None) as other:
        with pytest.raises(ConnectionClosed):
            other.recv(timeout=PATIENCE_SECONDS)
        assert other.close_code == 4403
    with connect(url, origin=PAGE, proxy=None) as ours:
        ours.send('{"type": "auth", "token": "nobody knows it"}')
        with contextlib.suppress(ConnectionClosed):
            while True:
                ours.recv(timeout=PATIENCE_SECONDS)
        assert ours.close_code != 4403


def test_the_api_stops_when_it_is_told_to_although_a_request_never_ends(house: House, tmp_path: Path) -> None:
    """Nothing is waited for longer than the time for draining; the body may take an hour here."""
    env = house.env | {"API_PORT": str(free_port())}
    with (
        running("serve", env=env, folder=tmp_path) as api,
        contextlib.closing(_connection(api, env["API_PORT"])) as client,
    ):
        client.sendall(
            b"POST /api/auth/login HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(1024).startswith(b"HTTP/1.1 100 ")  # its body is being waited for
        status = api.stop()

    assert status == 0


def _connection(api: Running, port: str) -> socket.socket:
    api.until(lambda: accepts(port))
    return socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE_SECONDS)
