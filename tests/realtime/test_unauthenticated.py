"""Connections without a token: bounded for themselves, and never in the way of health checks and listeners."""

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from domain.addresses import Proxies
from domain.principals import Principal
from realtime.limits import Limits
from realtime.session import MAX_HEAD_BYTES
from tests.realtime.conftest import World
from tests.support.processes import accepts, environment, run, running
from tests.support.waiting import patience

DESCRIPTORS = 256
FLOOD = 800
CHECKED_EVERY = 40
BALANCER_SECONDS = 4  # of a load balancer, before the five after which a connection without a token ends
EMAIL = "ops@example.com"
TRUSTED = "127.0.0.1/32"
LOOPBACK = ip_network(TRUSTED)

UPGRADE = (
    "GET /v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
)
# Nothing at all, a head that never ends, and an upgrade that no token follows.
SENT = (b"", UPGRADE[:40].encode(), UPGRADE.encode())


async def get(port: str, path: str) -> tuple[int, str]:
    """Ask for a page on a connection of its own; status 0 if it is not answered."""
    try:
        async with asyncio.timeout(BALANCER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
            return int(head.split()[1]), body
    except (OSError, TimeoutError, IndexError):
        return 0, ""


def figure(name: str, metrics: str) -> float:
    """Return one figure of the metrics."""
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return float(value)


@contextlib.asynccontextmanager
async def flood(port: str) -> AsyncIterator[AsyncIterator[int]]:
    """Open connections that never show a token and are never closed, one after the other."""
    writers: list[asyncio.StreamWriter] = []

    async def opening() -> AsyncIterator[int]:
        for number in range(FLOOD):
            _, writer = await asyncio.open_connection("127.0.0.1", int(port))
            writers.append(writer)
            writer.write(SENT[number % len(SENT)])
            yield number

    try:
        yield opening()
    finally:
        for writer in writers:
            writer.transport.abort()


async def test_health_and_listeners_are_served_while_connections_without_a_token_flood_in(tmp_path: Path) -> None:
    """More than twice as many as there are descriptors: each health check is answered, and no listener is lost."""
    env = environment(tmp_path, relay_password="correct horse battery")
    for command in (("migrate",), ("org", "add", "Acme"), ("user", "add", "Acme", EMAIL, "--name", "Ops")):
        done = run(*command, env=env, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    token = run("user", "token", EMAIL, env=env, folder=tmp_path).stdout.strip()
    port = env["REALTIME_PORT"]
    address, header = f"ws://127.0.0.1:{port}/v1", {"Authorization": f"Bearer {token}"}
    statuses, pongs = [], []
    with running("broadcast", env=env, folder=tmp_path, descriptors=(DESCRIPTORS, DESCRIPTORS)) as broadcaster:
        broadcaster.until(lambda: accepts(port))
        async with connect(address, additional_headers=header, proxy=None) as listener, flood(port) as opened:
            assert json.loads(await listener.recv())["type"] == "hello"
            async for number in opened:
                if number % CHECKED_EVERY == 0:
                    statuses.append((await get(port, "/healthz"))[0])
                    await listener.send('{"type":"ping"}')
                    pongs.append(json.loads(await listener.recv())["type"])
            async with connect(address, additional_headers=header, proxy=None) as another:
                assert json.loads(await another.recv())["type"] == "hello"
            used = len(os.listdir(f"/proc/{broadcaster.process.pid}/fd"))  # noqa: PTH208
            _, metrics = await get(port, "/metrics")

    assert statuses == [200] * (FLOOD // CHECKED_EVERY)
    assert pongs == ["pong"] * (FLOOD // CHECKED_EVERY)
    assert used < DESCRIPTORS
    assert "out of system resource" not in broadcaster.errors
    assert figure("realtime_unauthenticated", metrics) <= DESCRIPTORS // 4
    assert figure("realtime_dropped_total", metrics) > FLOOD // 2


async def test_the_oldest_connection_without_a_token_makes_room_for_the_newest(world: World) -> None:
    """Listeners are not counted among them, and one that sends its token is not counted any longer."""
    async with (
        world.broadcaster(limits=Limits(drain_seconds=0.1, unauthenticated=2)) as station,
        station.listener() as listener,
        station.listener(None) as first,
        station.listener(None) as second,
        station.listener(None) as third,
    ):
        await listener.next()
        await first.closed()
        assert (await second.ask(type="auth", token="ours"))["type"] == "hello"
        async with station.listener(None) as fourth:
            assert (await fourth.ask(type="auth", token="ours"))["type"] == "hello"
            assert (await third.ask(type="auth", token="ours"))["type"] == "hello"
            assert (await listener.ask(type="ping"))["type"] == "pong"


async def test_a_request_with_a_long_head_is_refused_before_it_ends(world: World) -> None:
    """Thousands of connections that each bring a megabyte before any token would fill the memory."""
    line = b"x: %s\r\n" % (b"y" * 8000)
    async with world.broadcaster() as station:
        reader, writer = await asyncio.open_connection("127.0.0.1", station.port)
        writer.write(b"GET /v1 HTTP/1.1\r\n" + line * (MAX_HEAD_BYTES // len(line)))
        await writer.drain()
        writer.write(line)
        async with patience():
            answer = await reader.read()
        writer.close()
        _, _, metrics = await station.get("/metrics")
        async with station.listener(additional_headers={"Authorization": "Bearer ours", "Cookie": "c" * 7000}) as ours:
            assert (await ours.next())["type"] == "hello"

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert figure('realtime_refused_total{reason="head"}', metrics.decode()) == 1


async def test_one_address_has_its_own_bound_of_connections_without_a_token(world: World) -> None:
    """Behind a trusted proxy each client is an address of its own."""
    limits = Limits(drain_seconds=0.1, unauthenticated=10, unauthenticated_per_address=1)
    async with world.broadcaster(limits=limits, proxies=Proxies([LOOPBACK])) as station:
        theirs, ours = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
        async with (
            station.listener(None, additional_headers=theirs) as first,
            station.listener(None, additional_headers=ours) as other,
            station.listener(None, additional_headers=theirs) as second,
        ):
            await first.closed()
            assert (await second.ask(type="auth", token="ours"))["type"] == "hello"
            assert (await other.ask(type="auth", token="ours"))["type"] == "hello"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "status"),
    [
        ([TRUSTED], ["203.0.113.1", "203.0.113.2"], 101),
        ([TRUSTED], ["203.0.113.1", "203.0.113.1"], 429),
        ([TRUSTED], ["2001:db8::1", "2001:db8::2"], 429),
        ([TRUSTED], ["203.0.113.8, 203.0.113.1", "203.0.113.9, 203.0.113.1"], 429),
        ([], ["203.0.113.1", "203.0.113.2"], 429),
    ],
)
async def test_the_limit_of_an_address_is_the_clients_behind_a_trusted_proxy(
    world: World, trusted: list[str], forwarded: list[str], status: int
) -> None:
    """Otherwise it would be one limit for everybody; and nobody else's word counts."""
    proxies = Proxies([ip_network(network) for network in trusted])
    async with world.broadcaster(limits=Limits(drain_seconds=0.1, per_address=1), proxies=proxies) as station:
        headers = [{"Authorization": "Bearer ours", "X-Forwarded-For": hops} for hops in forwarded]
        async with connect(station.url, additional_headers=headers[0], proxy=None) as first:
            await first.recv()
            try:
                async with connect(station.url, additional_headers=headers[1], proxy=None) as second:
                    await second.recv()
                    outcome = 101
            except InvalidStatus as refused:
                outcome = refused.response.status_code

    assert outcome == status


async def test_a_listener_beyond_the_limit_of_all_is_told_to_come_back(world: World) -> None:
    """With its token in a message it hears a close code; those who are there stay."""
    world.tokens["more"] = Principal(world.tokens["ours"].kind, world.theirs)
    async with (
        world.broadcaster(limits=Limits(drain_seconds=0.1, connections=1)) as station,
        station.listener(None) as beyond,
        station.listener() as listener,
    ):
        await listener.next()
        assert (await beyond.ask(type="auth", token="more"))["code"] == "try_later"
        assert await beyond.closed() == 1013
        assert (await listener.ask(type="ping"))["type"] == "pong"


def test_limits_follow_the_sockets_there_can_be() -> None:
    """A quarter is for those without a token, whatever was wished for."""
    limits = Limits().within(192)

    assert (limits.connections, limits.unauthenticated, limits.unauthenticated_per_address) == (144, 48, 24)
    assert Limits().within(10**6) == Limits()
