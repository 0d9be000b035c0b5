"""Both stores keep recordings alike: whole or not at all, streamed, and with every fault named."""

import asyncio
import hashlib
import os
import re
import signal
import socket
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from domain import times
from domain.errors import ConfigurationError, RecordingRejected, StorageUnavailable
from providers.storage import (
    MAX_LINK_SECONDS,
    PART_BYTES,
    DiskStore,
    RecordingStore,
    S3Store,
    StoredKey,
    StoredObject,
    connect_s3,
)
from tests.support.full_disk import ROOM, small_disk
from tests.support.laboratory import Script, answer, falling_silent, laboratory, saying
from tests.support.object_storage import (
    ACCESS_KEY_ID,
    BUCKET,
    SECRET_ACCESS_KEY,
    Relay,
    bucket,
    plain_client,
    relay,
    s3_server,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "org/665f1f77bcf86cd799439011/calls/665f1f77bcf86cd799439012/recording.mp3"
SECRET = b"a secret of the installation"


def content(size: int) -> bytes:
    """Return `size` bytes that no shift or swap of pieces would leave alike."""
    block = b"".join(index.to_bytes(4, "big") for index in range(1 << 14))
    return (block * (size // len(block) + 1))[:size]


async def pieces(whole: bytes, length: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), length):
        yield whole[start : start + length]


async def failing(before: bytes, error: BaseException) -> AsyncIterator[bytes]:
    async for piece in pieces(before):
        yield piece
    raise error


async def whole(store: RecordingStore, key: str = KEY, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, start, end)])


async def listed(store: RecordingStore, prefix: str = "") -> set[str]:
    return {entry.key async for entry in store.keys(prefix)}


def s3_store(url: str, name: str = BUCKET, **seconds: float) -> S3Store:
    return connect_s3(
        endpoint_url=url,
        bucket=name,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        **seconds,  # type: ignore[arg-type]
    )


def disk_store(root: Path) -> DiskStore:
    return DiskStore(root, SECRET, "http://127.0.0.1:2212/recordings")


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def client(s3_url: str) -> Iterator["S3Client"]:
    """What somebody else sees of the S3 server."""
    made = plain_client(s3_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_s3_store(s3_url: str) -> Iterator[S3Store]:
    store = s3_store(s3_url)
    yield store
    asyncio.run(store.close())


@pytest.fixture
def on_s3(shared_s3_store: S3Store, client: "S3Client") -> Iterator[S3Store]:
    """A store with an empty bucket; afterwards, no upload may have been left unfinished in it."""
    with bucket(client):
        yield shared_s3_store
        assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[DiskStore]:
    """A store with an empty folder; afterwards, nothing half-written may have been left in it."""
    root = tmp_path / "recordings"
    yield disk_store(root)
    assert not list(root.rglob("*.partial"))


@pytest.fixture(params=["on_disk", "on_s3"])
def store(request: pytest.FixtureRequest) -> RecordingStore:
    """Each kind of store in turn."""
    chosen: RecordingStore = request.getfixturevalue(request.param)
    return chosen


class TestBothStores:
    """The contract, kept by the folder and by the bucket."""

    @pytest.mark.parametrize("size", [0, 1, 65536, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 3])
    async def test_what_is_stored_can_be_read(self, store: RecordingStore, size: int) -> None:
        """Every byte comes back, and size and hash are those of the content, on either side of a part's border."""
        stored = await store.store(KEY, pieces(content(size), 65537), "audio/mpeg")
        assert stored == StoredObject(KEY, size, hashlib.sha256(content(size)).hexdigest())
        assert await store.size(KEY) == size
        assert await whole(store) == content(size)

    async def test_chunks_may_have_any_length(self, store: RecordingStore) -> None:
        """Empty chunks and one that is longer than a part are all the same."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b""
            yield content(2 * PART_BYTES + 7)
            yield b""
            yield b"end"

        assert (await store.store(KEY, chunks(), "audio/mpeg")).size == 2 * PART_BYTES + 10
        assert await whole(store) == content(2 * PART_BYTES + 7) + b"end"

    @pytest.mark.parametrize("before", [0, 70_000, PART_BYTES + 70_000, 2 * PART_BYTES + 1])
    @pytest.mark.parametrize(
        "error", [RecordingRejected("cut off"), OSError("not the disk's"), TimeoutError("not ours")]
    )
    async def test_an_error_of_the_source_passes_through(
        self, store: RecordingStore, before: int, error: Exception
    ) -> None:
        """Whoever feeds the store gets the very exception back, and nothing is there."""
        with pytest.raises(type(error)) as caught:
            await store.store(KEY, failing(content(before), error), "audio/mpeg")
        assert caught.value is error
        assert await listed(store) == set()
        with pytest.raises(FileNotFoundError):
            await store.size(KEY)

    @pytest.mark.parametrize("before", [0, 70_000, PART_BYTES + 70_000])
    async def test_a_cancelled_store_leaves_nothing(self, store: RecordingStore, before: int) -> None:
        """Cancelling in the middle removes what was written."""
        arrived = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            async for piece in pieces(content(before)):
                yield piece
            arrived.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.store(KEY, chunks(), "audio/mpeg"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await listed(store) == set()

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, 1), (0, None), (1, None), (99_999, None), (99_999, 100_000), (100, 100), (200, 100), (5, 90_000),
         (100_000, None), (10**9, None), (0, 10**9), (50_000, 10**9), (0, 0)],
    )  # fmt: skip
    async def test_a_range_is_what_a_slice_would_be(self, store: RecordingStore, start: int, end: int | None) -> None:
        """The end is not included, and what lies beyond the object is left out."""
        await store.store(KEY, pieces(content(100_000)), "audio/mpeg")
        assert await whole(store, KEY, start, end) == content(100_000)[start:end]

    async def test_a_negative_range_is_a_mistake(self, store: RecordingStore) -> None:
        """Counting from the end is not offered."""
        await store.store(KEY, pieces(b"abc"), "audio/mpeg")
        for start, end in ((-1, None), (0, -1)):
            with pytest.raises(ValueError, match="range"):
                await whole(store, KEY, start, end)

    async def test_a_reader_may_leave_early(self, store: RecordingStore) -> None:
        """Closing a half-read object does no harm to the next reader."""
        await store.store(KEY, pieces(content(3_000_000)), "audio/mpeg")
        async with aclosing(store.read(KEY)) as chunks:  # type: ignore[type-var]
            assert content(3_000_000).startswith(await anext(chunks))
        assert await whole(store) == content(3_000_000)

    async def test_what_is_not_there_is_not_found(self, store: RecordingStore) -> None:
        """Reading and measuring say so, whole or in part, and so for what is only a folder."""
        await store.store(KEY, pieces(b"abc"), "audio/mpeg")
        for key in ("nothing", "org", f"{KEY}/beneath", KEY[:-1]):
            with pytest.raises(FileNotFoundError):
                await store.size(key)
            with pytest.raises(FileNotFoundError):
                await whole(store, key)
            with pytest.raises(FileNotFoundError):
                await whole(store, key, 1, 2)

    async def test_removing_twice_is_as_good_as_once(self, store: RecordingStore) -> None:
        """After it the object is gone, and it does not matter whether it ever was there."""
        await store.store(KEY, pieces(b"abc"), "audio/mpeg")
        for key in (KEY, KEY, "never/was", "org", f"{KEY}/beneath"):
            await store.remove(key)
        assert await listed(store) == set()

    @pytest.mark.parametrize(
        "key",
        ["", "/", "/etc/passwd", "../a", "a/../b", "a/..", "..", ".", "a/./b", "a//b", "a/", "a\0b", "a\\b", "a b", "a\nb",
         "a\n", "é", "%2e%2e/a", "~/a", "a:b", "a" * 201, "a/" * 300 + "a"],
    )  # fmt: skip
    async def test_other_keys_than_ours_are_refused(self, store: RecordingStore, key: str) -> None:
        """Nothing that could lead elsewhere is tried, with any verb."""
        for attempt in (
            lambda: store.store(key, pieces(b"abc"), "audio/mpeg"),
            lambda: whole(store, key),
            lambda: store.size(key),
            lambda: store.remove(key),
            lambda: store.link(key, 60),
        ):
            with pytest.raises(ValueError, match="Not the key of a recording"):
                await attempt()

    async def test_the_listing_follows_the_prefix(self, store: RecordingStore) -> None:
        """A prefix is text, not a folder; each key comes with the time it was written."""
        keys = {"org/a/1", "org/a/2", "org/ab/3", "org/b/a/4", "other", "org.mp3"}
        for key in keys:
            await store.store(key, pieces(b"abc"), "audio/mpeg")
        assert await listed(store) == keys
        for prefix in ("org/", "org/a", "org/a/", "org/b/a/4", "o", "org", "nothing/", "org/a/1/", "../", "/"):
            assert await listed(store, prefix) == {key for key in keys if key.startswith(prefix)}
        entries = [entry async for entry in store.keys("other")]
        assert abs(times.from_wire(entries[0].modified_at) - datetime.now(UTC)) < timedelta(minutes=1)
        assert entries == [StoredKey("other", entries[0].modified_at)]

    async def test_a_long_listing_is_complete(self, store: RecordingStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """More objects than fit into one page are all listed, once."""
        monkeypatch.setattr("providers.storage._LISTING", 7)
        keys = [f"org/{number:02}" for number in range(35)]
        await asyncio.gather(*(store.store(key, pieces(b"a"), "audio/mpeg") for key in keys))
        assert sorted([entry.key async for entry in store.keys("org/")]) == keys

    async def test_an_empty_store_lists_nothing(self, store: RecordingStore) -> None:
        """Before anything was stored there is nothing to list, and the store is usable."""
        assert await listed(store) == set()
        await store.check()

    async def test_many_at_once_do_not_mix(self, store: RecordingStore) -> None:
        """Forty objects written and read at the same time stay apart."""
        bodies = {f"org/{number}/recording.mp3": content(50_000 + number) for number in range(40)}
        await asyncio.gather(*(store.store(key, pieces(body), "audio/mpeg") for key, body in bodies.items()))
        assert await asyncio.gather(*(whole(store, key) for key in bodies)) == list(bodies.values())

    async def test_a_link_lasts_from_a_second_to_a_week(self, store: RecordingStore) -> None:
        """Other durations are refused here, because S3 libraries would sign them."""
        for seconds in (1, MAX_LINK_SECONDS):
            assert (await store.link(KEY, seconds)).startswith("http://127.0.0.1:")
        for seconds in (0, -1, MAX_LINK_SECONDS + 1):
            with pytest.raises(ValueError, match="604800"):
                await store.link(KEY, seconds)


class TestMemory:
    """Neither store holds an object as a whole."""

    SIZE = 100 * 1024 * 1024

    async def _chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.SIZE // 65536):
            yield bytes(65536)

    async def _peak(self, store: RecordingStore) -> int:
        tracemalloc.start()
        try:
            assert (await store.store(KEY, self._chunks(), "audio/mpeg")).size == self.SIZE
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def test_a_folder_takes_a_hundred_megabytes_in_small_chunks(self, tmp_path: Path) -> None:
        """A chunk is written before the next one is asked for."""
        store = disk_store(tmp_path)
        assert await self._peak(store) < 2 * 1024 * 1024
        tracemalloc.start()
        assert sum([len(chunk) async for chunk in store.read(KEY)]) == self.SIZE
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * 1024 * 1024

    async def test_a_bucket_takes_a_hundred_megabytes_in_parts(self) -> None:
        """One part at a time is in memory, however long the object."""
        lengths: list[int] = []

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            length = remaining = int(re.findall(r"Content-Length: (\d+)", lab.requests[-1])[0])
            while remaining:
                remaining -= len(await reader.read(min(remaining, 65536)))
            lengths.append(length)
            body = b"<Result><UploadId>one</UploadId><ETag>tag</ETag></Result>"
            writer.write(answer(body, etag="tag", connection="close"))

        async with laboratory(swallow) as lab:
            store = s3_store(lab.url)
            assert await self._peak(store) < 16 * 1024 * 1024
            await store.close()
        assert lengths[1:-1] == [PART_BYTES] * (self.SIZE // PART_BYTES) + [self.SIZE % PART_BYTES]


async def timed(work: Coroutine[None, None, None]) -> tuple[BaseException | None, float]:
    """Return what `work` failed with, if it did, and how many seconds it took."""
    began = time.monotonic()
    (error,) = await asyncio.gather(work, return_exceptions=True)
    return error, time.monotonic() - began


VERBS = ["store", "store in parts", "read", "read a range", "size", "remove", "keys", "check"]


async def attempt(store: RecordingStore, verb: str) -> None:
    """Use one verb on an object that was there all the time."""
    other = KEY.replace("recording", "other")
    match verb:
        case "store":
            await store.store(other, pieces(b"abc"), "audio/mpeg")
        case "store in parts":
            await store.store(other, pieces(content(PART_BYTES + 1)), "audio/mpeg")
        case "read":
            assert await whole(store) == content(300_000)
        case "read a range":
            assert await whole(store, KEY, 1, 9) == content(300_000)[1:9]
        case "size":
            assert await store.size(KEY) == 300_000
        case "remove":
            await store.remove(other)
        case "keys":
            assert KEY in await listed(store)
        case "check":
            await store.check()


XML_ERROR = b"<Error><Code>%s</Code><Message>as you like</Message></Error>"

FAULTS = {
    "500": saying(answer(XML_ERROR % b"InternalError", "500 Internal Server Error")),
    "503": saying(answer(b"", "503 Slow Down")),
    "403": saying(answer(XML_ERROR % b"SignatureDoesNotMatch", "403 Forbidden")),
    "no such bucket": saying(answer(XML_ERROR % b"NoSuchBucket", "404 Not Found")),
    "garbage XML": saying(answer(b"<List<<<>&nope;" + b"\xff" * 50, "200 OK", content_length="300000")),
    "a page instead": saying(answer(b"<html><body>Please log in</body></html>", content_type="text/html")),
    "garbage XML with an error status": saying(answer(b"<Error><Co\0de", "400 Bad Request")),
    "garbage HTTP": saying(b"\x16\x03\x01 not HTTP at all\r\n\r\n"),
    "hangs up": saying(b""),
    "silence": falling_silent(),
    "a head and then silence": falling_silent(answer(content_length="300000")),
    "a redirect": saying(answer(b"", "301 Moved Permanently", location="http://127.0.0.1:1/")),
}

# What a HEAD request cannot tell, because its answer has no body; and a deletion is asked for, not proven.
INVISIBLE = {
    ("size", "no such bucket"),
    ("read a range", "no such bucket"),
    ("size", "garbage XML"),
    ("size", "a head and then silence"),
    ("size", "a page instead"),
    ("read", "a page instead"),
    ("read a range", "a page instead"),
    ("remove", "a page instead"),
}


@pytest.fixture(scope="module")
def impatient_store() -> Iterator[S3Store]:
    """A store with short time limits, connected to a port nobody listens on yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = s3_store(f"http://127.0.0.1:{port}", connect_seconds=0.5, read_seconds=0.2, call_seconds=1)
    yield store
    asyncio.run(store.close())


@pytest.fixture
async def faulty(impatient_store: S3Store, s3_url: str, client: "S3Client") -> AsyncIterator[tuple[S3Store, Relay]]:
    """A store whose bucket lies behind a relay, with an object in it."""
    port = urlsplit(await impatient_store.link(KEY, 1)).port or 0
    with bucket(client):
        async with relay(s3_url, port) as between:
            await impatient_store.store(KEY, pieces(content(300_000)), "audio/mpeg")
            yield impatient_store, between


class TestFaultsOfTheBucket:
    """Whatever the S3 server does, the answer is StorageUnavailable, in time, and soon forgotten."""

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_every_verb_fails_alike_and_recovers_at_once(self, faulty: tuple[S3Store, Relay], fault: str) -> None:
        """No other exception escapes, nothing waits longer than it may, and the next try succeeds."""
        store, between = faulty
        await between.misbehave(FAULTS[fault])
        outcomes = await asyncio.gather(*(timed(attempt(store, verb)) for verb in VERBS))
        await between.misbehave(None)
        for verb, (error, seconds) in zip(VERBS, outcomes, strict=True):
            expected = (
                (FileNotFoundError, AssertionError, NoneType) if (verb, fault) in INVISIBLE else StorageUnavailable
            )
            assert isinstance(error, expected), (verb, error)
            assert seconds < 4, verb
        for verb in VERBS:
            await attempt(store, verb)

    async def test_a_server_that_is_down_fails_every_verb_and_recovers_at_once(
        self, faulty: tuple[S3Store, Relay]
    ) -> None:
        """Connections refused are StorageUnavailable too; no restart is needed when the server is back."""
        store, between = faulty
        await between.stop()
        for error, seconds in await asyncio.gather(*(timed(attempt(store, verb)) for verb in VERBS)):
            assert isinstance(error, StorageUnavailable)
            assert seconds < 3
        await between.start()
        for verb in VERBS:
            await attempt(store, verb)
