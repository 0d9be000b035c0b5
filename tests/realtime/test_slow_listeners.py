"""Half of the listeners stop reading while ten megabytes pass by: what it costs, and what becomes of them."""

import asyncio
from pathlib import Path

from tests.realtime.conftest import World, make_event
from tests.realtime.crowd import REQUEST, Line, Transcript
from tests.realtime.stations import Stations
from tests.support.waiting import patience

MEGABYTE = 1 << 20
EVENTS = 2560
BATCH = 40
PADDING = 4000  # makes ten megabytes of them
WARM_UP = 2 * EVENTS  # more than the broadcaster's and the database's own caches hold


class Reader:
    """A listener that reads what comes, each time the next sequence, except while it sleeps."""

    def __init__(self, port: int, transcript: Transcript, since: int = 0) -> None:
        self.position = since
        self._port = port
        self._transcript = transcript
        self._moved = asyncio.Event()

    async def connect(self) -> None:
        """Connect, or come back, after the last event; return once the hello is there."""
        loop = asyncio.get_running_loop()
        self._transport, self._line = await loop.create_connection(lambda: Line(self._hear), "127.0.0.1", self._port)
        self._line.ended.add_done_callback(self._notice)
        self._transport.write(REQUEST.format(since=self.position).encode())
        await self._line.spoken

    def leave(self) -> None:
        self._transport.abort()

    def sleep(self) -> None:
        self._transport.pause_reading()

    def _notice(self, _: object) -> None:
        self._moved.set()

    async def wake(self) -> int | None:
        """Read what is still there, up to the end of the connection; return the close code, if there was one."""
        self._transport.resume_reading()
        code = await self._line.ended
        self._transport.abort()
        return code

    async def reach(self, sequence: int) -> None:
        while self.position < sequence:
            assert not self._line.ended.done(), self._line.fault
            self._moved.clear()
            await self._moved.wait()

    def _hear(self, payload: bytes, line: Line) -> None:
        sequence = self._transcript.check(payload)
        if sequence is None:
            line.say_spoken()
        else:
            assert sequence == self.position + 1
            self.position = sequence
            self._moved.set()


async def commit(world: World, count: int) -> None:
    """Commit `count` events of four kilobytes, a batch at a time."""
    for _ in range(0, count, BATCH):
        await world.commit(*(make_event(padding=PADDING) for _ in range(BATCH)))


def peak(pid: int) -> int:
    """Return the most memory the process had since the last call, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def queued(port: int) -> int:
    """Return the bytes the kernel holds for connections of `port`, at both ends."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row[4] for row in rows if f"{port:04X}" in (row[1].partition(":")[2], row[2].partition(":")[2])]
    return sum(int(size, 16) for queues in ours for size in queues.split(":"))


async def closed_as_too_slow(port: int, count: int) -> None:
    """Wait until the broadcaster has closed that many listeners with 4490."""
    wanted = f'realtime_closed_total{{code="4490"}} {count}.0'.encode()
    page = b""
    while wanted not in page:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        page = await reader.read()
        writer.close()


async def test_half_of_the_listeners_fall_asleep(world: World, database_url: str) -> None:
    """The others get everything, little is kept for the sleepers, and they get the rest when they come back."""
    transcript = Transcript()
    async with Stations(database_url, 2000, world.ours, 1, unsent=256 << 10, stall=2).running() as stations:
        (port,) = stations.ports
        early = Reader(port, transcript)
        await early.connect()
        await commit(world, WARM_UP)
        await early.reach(WARM_UP)
        readers = [Reader(port, transcript, WARM_UP) for _ in range(40)]
        for reader in readers:
            await reader.connect()
        sleepers, others = readers[:20], readers[20:]
        for reader in sleepers:
            reader.sleep()
        peak(stations.pid(port))
        before = peak(stations.pid(port))

        # In steps, so that nobody but the sleepers has anything unsent.
        async with patience():
            for committed in range(BATCH, EVENTS + 1, BATCH):
                await commit(world, BATCH)
                await asyncio.gather(*(reader.reach(WARM_UP + committed) for reader in others))
        held = queued(port)
        growth = peak(stations.pid(port)) - before

        assert growth <= 10 * MEGABYTE
        assert held <= 10 * MEGABYTE
        async with patience():
            await closed_as_too_slow(port, 20)
            # On a machine that is very busy the last of them are cut off before they can read why.
            assert {await reader.wake() for reader in sleepers} <= {4490, None}
            assert all(reader.position < WARM_UP + EVENTS for reader in sleepers)
            for reader in sleepers:
                await reader.connect()
                await reader.reach(WARM_UP + EVENTS)
        for reader in (early, *readers):
            reader.leave()
