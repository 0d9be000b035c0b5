"""Connections that end where the library does not expect it, which is no error of the server's."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.frames import Frame, Opcode

from realtime.frames import Close
from realtime.session import MAX_HEAD_BYTES, Session
from tests.realtime.conftest import Station, World, make_event, unhurried
from tests.support.ports import free_port
from tests.support.waiting import patience, until

NO_FRAME = b"GET / HTTP/1.1\r\n\r\n"  # a second request is what a client that pipelines sends
RESET = struct.pack("ii", 1, 0)


def request(path: str = "/v1", token: str = "ours") -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Authorization: Bearer {token}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def masked(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@contextlib.asynccontextmanager
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST, as a process that is killed with unread bytes does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def only(station: Station) -> Session:
    (session,) = station.server._reception.sessions
    return session


async def until_nobody_is_left(station: Station) -> None:
    await until(lambda: not list(station.server._reception.sessions) and not len(station.server._arrivals))


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test that has the server, the library or the loop log an error."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("given", [request(token="unknown"), request(), request("/healthz")])
async def test_a_request_is_dropped_when_what_follows_it_is_no_frame(world: World, given: bytes) -> None:
    """It is not answered, whether it would have been refused or accepted: the library has hung up before that."""
    async with world.broadcaster() as station, line(station.port) as (reader, writer):
        writer.write(given + NO_FRAME)
        async with patience():
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        await until_nobody_is_left(station)


async def test_a_request_for_health_is_dropped_on_the_management_port_when_no_frame_follows_it(world: World) -> None:
    """The same on the port that answers nothing but pages."""
    port = free_port()
    async with world.broadcaster(management=("127.0.0.1", port)), line(port) as (reader, writer):
        writer.write(request("/healthz") + NO_FRAME)
        async with patience():
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""


async def test_a_refused_client_may_go_on_sending(world: World) -> None:
    """What comes after the refusal is discarded, however much it is."""
    async with world.broadcaster() as station, line(station.port) as (reader, writer):
        writer.write(request(token="unknown"))
        async with patience():
            assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
            writer.write(bytes(2 * MAX_HEAD_BYTES))
            await writer.drain()
        writer.close()
        await until_nobody_is_left(station)


@pytest.mark.parametrize("is_closing", [False, True])
async def test_a_listener_whose_machine_vanished_while_answers_wait_is_dismissed(
    world: World, *, is_closing: bool
) -> None:
    """The kernel gives up with ETIMEDOUT, here after a tenth of a second of a window that stays shut."""
    async with world.broadcaster(limits=unhurried(unsent_bytes=1 << 20, message_burst=10_000)) as station:
        async with line(station.port) as (reader, writer):
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            writer.write(request())
            async with patience():
                await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            session = only(station)
            kernel = session.connection.transport.get_extra_info("socket")
            kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
            while not session.connection.paused:
                await world.commit(make_event(padding=9000))
                await asyncio.sleep(0)
            writer.write(masked(Opcode.TEXT, b'{"type":"ping"}'))
            await until(lambda: bool(session.connection.drain_waiters))
            if is_closing:
                station.server._reception.close(session, Close.RESTART, "restarting")
            await until_nobody_is_left(station)
        assert isinstance(session.connection.connection_exc, TimeoutError)


@pytest.mark.parametrize("closes_first", ["server", "listener", "both"])
@pytest.mark.parametrize("said", [b'{"type":"ping"}', b"\xff"], ids=["a message before", "no text before"])
async def test_a_reset_inside_the_closing_handshake_is_no_error(world: World, closes_first: str, said: bytes) -> None:
    """The listener sends its last words, a close frame, and RST in one go."""
    async with world.broadcaster() as station, line(station.port) as (reader, writer):
        writer.write(request())
        async with patience():
            await reader.readuntil(b"\r\n\r\n")
        session = only(station)
        if closes_first in ("server", "both"):
            station.server._reception.close(session, Close.RESTART, "restarting")
        writer.write(masked(Opcode.TEXT, said))
        if closes_first in ("listener", "both"):
            writer.write(masked(Opcode.CLOSE, struct.pack("!H", 1000)))
        reset(writer)
        await until_nobody_is_left(station)
