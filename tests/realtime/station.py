"""A broadcaster as a process of its own; arguments: database, port, ring, organization, write buffer, patience."""

import asyncio
import sys

import structlog

from domain.principals import Principal, TokenKind
from persistence.database import open_database
from realtime.broadcaster import Broadcaster
from realtime.limits import Limits
from realtime.server import RealtimeServer
from realtime.session import Session


def main() -> None:
    """Serve until the process is killed."""
    # Nobody reads the output any more once this is ready.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_serve(*sys.argv[1:]))


async def _serve(database: str, port: str, ring: str, organization_id: str, unsent: str, stall: str) -> None:
    async def authenticate(_: str) -> Principal:
        return Principal(TokenKind.API_KEY, organization_id)

    broadcaster: Broadcaster[Session] = Broadcaster(ring_events=int(ring))
    limits = Limits(unsent_bytes=int(unsent), stall_seconds=float(stall), slowest_bytes_per_second=1 << 20)
    server = RealtimeServer(open_database(database), authenticate, broadcaster=broadcaster, limits=limits)
    async with server.running("127.0.0.1", int(port)):
        print("ready", flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
