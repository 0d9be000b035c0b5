"""A host that serves a recording on every address it has, and redirects wherever the query says.

Run as a module with a port. It prints one line when it listens, and one for each request.
"""

import asyncio
import socket
import sys
from urllib.parse import parse_qs, urlsplit

from tests.support.audio import mp3
from tests.support.laboratory import answer

AUDIO = mp3(3)


async def serve(port: int) -> None:
    listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    async with await asyncio.start_server(_answer, sock=listening) as server:
        print("listening", flush=True)  # noqa: T201
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    print(target, flush=True)  # noqa: T201
    to = parse_qs(urlsplit(target).query).get("to")
    writer.write(answer(status="302 Found", location=to[0]) if to else answer(AUDIO))
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
