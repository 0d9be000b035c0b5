"""The broadcaster as the measurements run it: `python -m bench.realtime.broadcaster DATABASE_URL PORT JWT_SECRET`.

Everything is as in production, limits and the checking of tokens included; only what a broadcaster never uses is left
out (recording storage, providers).
"""

import asyncio
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

from pydantic import SecretStr

from actions.authenticate import identify, revoked
from keyring.tokens import Tokens, shared_key
from persistence.database import open_database
from realtime.server import RealtimeServer, calm_collector


async def main(database_url: str, port: int, secret: str) -> None:
    """Serve until killed."""
    database = open_database(database_url)
    relay: Any = SimpleNamespace(database=database, tokens=Tokens([shared_key(SecretStr(secret))]))
    server = RealtimeServer(database, partial(identify, relay), partial(revoked, relay))
    calm_collector()
    async with server.running("127.0.0.1", port):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
