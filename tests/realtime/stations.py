"""Broadcasters in processes of their own, for tests that kill or weigh them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import Child, end, start

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
        self._database_url = database_url
        self._rest = [str(ring), organization_id, str(unsent), str(stall)]
        self._processes: dict[int, Child] = {}
        self.ports = [free_port() for _ in range(count)]

    async def start(self, port: int) -> None:
        arguments = [self._database_url, str(port), *self._rest]
        said, output = os.pipe()
        with os.fdopen(said) as saying:
            try:
                self._processes[port] = start(
                    *arguments, module="tests.realtime.station", env=os.environ, folder=ROOT, stdout=output, stderr=2
                )
            finally:
                os.close(output)
            assert await asyncio.to_thread(saying.readline) == "ready\n"

    def pid(self, port: int) -> int:
        """Return the process id of the broadcaster on `port`."""
        return self._processes[port].pid

    async def kill(self, port: int) -> None:
        await asyncio.to_thread(end, self._processes[port])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Stations"]:
        try:
            await asyncio.gather(*(self.start(port) for port in self.ports))
            yield self
        finally:
            for port in self._processes:
                await self.kill(port)
