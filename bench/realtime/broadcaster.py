"""The broadcaster as the measurements run it: `python -m bench.realtime.broadcaster DATABASE_URL PORT [uvloop]`.

Everything is as in production except the token, which names the organization instead of proving it.
"""

import asyncio
import sys

from domain.principals import Principal, TokenKind
from persistence.database import open_database
from realtime.limits import Limits
from realtime.server import RealtimeServer


async def authenticate(token: str) -> Principal:
    """Believe whatever comes."""
    return Principal(TokenKind.API_KEY, token)


async def main(database_url: str, port: int) -> None:
    """Serve until killed."""
    server = RealtimeServer(open_database(database_url), authenticate, limits=Limits(per_organization=20_000))
    async with server.running("127.0.0.1", port):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        uvloop.run(main(sys.argv[1], int(sys.argv[2])))
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
