"""The clients and the relay as a person runs it, where sockets are blocked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.clients.drivers import KINDS, Start, starter
from tests.support.ports import free_port
from tests.support.up import environment, manage, running_up

pytestmark = pytest.mark.asyncio(loop_scope="module")

Demo = dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    """The demo of a running relay, with one contact more; `realtimePort` is where its broadcaster is."""
    env = environment(tmp_path_factory.mktemp("up") / "var")
    async with running_up(env) as running:
        await manage(env, "org", "contact", "Demo", "+14165550177", "Robin")
        yield running.demo | {"realtimePort": env["REALTIME_PORT"]}


@pytest.fixture(params=KINDS)
def begin(request: pytest.FixtureRequest) -> Start:
    """Start a client: each test runs with each of them."""
    return starter(request.param)


async def test_events_are_read_from_the_api_until_the_socket_opens(demo: Demo, begin: Start) -> None:
    """Nothing is lost and nothing handed on twice on the way from one to the other."""
    blocked = free_port()
    async with begin(
        url=f"ws://127.0.0.1:{blocked}/v1", fallbackUrl=f"{demo['apiUrl']}/api/events", token=demo["apiKey"],
        events=["note_created"], hasten=True, chance=0.05,
    ) as client:  # fmt: skip
        polling = await client.next("polling")
        head = polling["detail"]["since"]
        await _note(demo, f"{head}: while sockets are blocked")
        await client.next("event")
        async with _forwarding(blocked, int(demo["realtimePort"])):
            live = await client.next("live")
            await _note(demo, f"{head}: when they are not")
            await client.next("event")
            place = await client.place()
            assert await client.stop() == 0

    assert client.heard == [head + 1, head + 2]
    assert live["detail"]["epoch"] == polling["detail"]["epoch"] == place[1]


async def test_an_unknown_epoch_is_told_alike_over_http_and_over_the_socket(demo: Demo, begin: Start) -> None:
    """A place in another log is a gap, whichever way it is given back, and the log of now is taken."""
    away = {"url": f"ws://127.0.0.1:{free_port()}/v1", "fallbackUrl": f"{demo['apiUrl']}/api/events", "chance": 0.05}
    told = []
    for options in (away, {"url": demo["realtimeUrl"]}):
        async with begin(**options, token=demo["apiKey"], since=1, epoch="0" * 24) as client:
            gap = await client.next("gap")
            told.append((gap["reason"], gap["since"], gap["oldest"], gap["epoch"]))

    assert told[0] == told[1]
    assert (told[0][0], told[0][1]) == ("epoch", 1)
    assert told[0][3] != "0" * 24


@contextlib.asynccontextmanager
async def _forwarding(port: int, target: int) -> AsyncIterator[None]:
    """Forward connections from one port to another, as if a proxy had stopped blocking them."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(carry, "127.0.0.1", port):
        yield


async def _note(demo: Demo, text: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{demo['apiUrl']}/api/webhook/elevenlabs/tools/create-note",
            json={"phone_number": "+14165550177", "note": text},
            headers={"Authorization": f"Bearer {demo['toolSecret']}"},
        )
    assert answer.json()["success"] is True
