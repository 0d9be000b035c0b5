"""Broadcasters in processes of their own, for tests that kill or weigh them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


class Stations:
    """Broadcaster processes on fixed ports, each of which can be killed and started again."""

    def __init__(
        self,
        database_url: str,
        ring: int,
        organization_id: str,
        count: int,
        *,
        unsent: int = 32 << 10,
        stall: float = 0.5,
    ) -> None:
        self._command = [sys.executable, "-m", "tests.realtime.station", database_url]
        self._rest = [str(ring), organization_id, str(unsent), str(stall)]
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self.ports = [free_port() for _ in range(count)]

    async def start(self, port: int) -> None:
        process = self._processes[port] = await asyncio.create_subprocess_exec(
            *self._command, str(port), *self._rest, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"

    def pid(self, port: int) -> int:
        """Return the process id of the broadcaster on `port`."""
        return self._processes[port].pid

    async def kill(self, port: int) -> None:
        self._processes[port].kill()
        await self._processes[port].wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Stations"]:
        try:
            await asyncio.gather(*(self.start(port) for port in self.ports))
            yield self
        finally:
            for port in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    await self.kill(port)
