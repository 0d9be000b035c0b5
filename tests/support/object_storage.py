"""An S3 server on loopback, and a relay in front of it that records what is sent and misbehaves when told to."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import boto3
from moto.server import ThreadedMotoServer

from tests.support.laboratory import Script

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY_ID = "AKIDEXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"

BUCKET = "recordings"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 server in a thread and hand over its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def plain_client(url: str) -> "S3Client":
    """Return a client of the server at `url` that has nothing to do with the code under test."""
    client: S3Client = boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )
    return client


@contextmanager
def bucket(client: "S3Client") -> Iterator[str]:
    """Hand over the name of an empty bucket; afterwards, its objects and unfinished uploads are removed."""
    client.create_bucket(Bucket=BUCKET)
    try:
        yield BUCKET
    finally:
        for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
        for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        client.delete_bucket(Bucket=BUCKET)


class Relay:
    """Passes connections on to the server; `sent` is every byte the clients sent.

    While `script` is set, connections are answered by it instead, as if the server had gone mad. A request that holds
    the first bytes of `sabotage` is answered with the second instead of the server's own answer; the third tells
    whether the server gets to see it.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        host, _, target_port = target.removeprefix("http://").partition(":")
        self._target = host, int(target_port)
        self.port = port
        self.sent = bytearray()
        self.script: Script | None = None
        self.sabotage: tuple[bytes, bytes, bool] | None = None
        self.connections = 0
        self.asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def heads(self) -> list[str]:
        """Return the head of every request sent so far, as text."""
        pattern = rb"(?:GET|HEAD|PUT|POST|DELETE) /\S* HTTP/1\.1\r\n(?:[^\r\n]+\r\n)+"
        return [match.decode("latin-1") for match in re.findall(pattern, bytes(self.sent))]

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        await self.drop()

    async def drop(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def misbehave(self, script: Script | None) -> None:
        """Answer new connections with `script` (None: pass them on) and end the old ones."""
        self.script = script
        await self.drop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.append(asyncio.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                if self.script is None:
                    await self._forward(reader, writer)
                else:
                    self.sent += await reader.readuntil(b"\r\n\r\n")
                    self.asked.set()
                    await self.script(reader, writer)
        finally:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        back = asyncio.create_task(_copy(inner_reader, writer))
        try:
            while data := await reader.read(65536):
                self.sent += data
                self.asked.set()
                if self.sabotage is not None and self.sabotage[0] in data:
                    back.cancel()
                    if self.sabotage[2]:
                        inner_writer.write(data)
                        await inner_reader.readuntil(b"\r\n\r\n")
                    writer.write(self.sabotage[1])
                    return
                inner_writer.write(data)
                await inner_writer.drain()
        finally:
            inner_writer.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def relay(target: str, port: int = 0) -> AsyncIterator[Relay]:
    """Listen on `port`, or a free one, in front of the server at `target`."""
    it = Relay(target, port)
    await it.start()
    try:
        yield it
    finally:
        await it.stop()
