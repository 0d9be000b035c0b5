"""Both stores keep recordings alike: whole or not at all, streamed, and with every fault named."""

import asyncio
import hashlib
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from domain import times
from domain.errors import ConfigurationError, RecordingRejected, StorageUnavailable
from providers.storage.disk import DiskStore
from providers.storage.keys import MAX_LINK_SECONDS, RecordingStore, StoredKey, StoredObject
from providers.storage.s3 import PART_BYTES, S3Store, connect_s3
from tests.support.certificates import Authority
from tests.support.full_disk import ROOM, small_disk
from tests.support.laboratory import answer, falling_silent, laboratory, repeating, saying
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
from tests.support.waiting import PATIENCE_SECONDS, patience

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


NOT_KEYS = [
    *(
        "",
        "/",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/..",
        "..",
        ".",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\\b",
        "a b",
        "a\nb",
    ),
    *("a\n", "é", "%2e%2e/a", "~/a", "a:b", "a" * 201, "a/" * 300 + "a"),
]


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
        async with aclosing(store.read(KEY)) as chunks:
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

    async def test_other_keys_than_ours_are_refused(self, store: RecordingStore) -> None:
        """Nothing that could lead elsewhere is tried, with any verb."""
        for key in NOT_KEYS:
            for refused in (
                store.store(key, pieces(b"abc"), "audio/mpeg"),
                whole(store, key),
                store.size(key),
                store.remove(key),
                store.link(key, 60),
            ):
                with pytest.raises(ValueError, match="Not the key of a recording"):
                    await refused

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
        for store_module in ("disk", "s3"):
            monkeypatch.setattr(f"providers.storage.{store_module}._LISTING", 7)
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


HUNDRED_MEGABYTES = 100 * 1024 * 1024

# Measured in a process of its own: a server in a thread of this one would count as well.
_GROWTH = """
import asyncio, re, sys
from pathlib import Path
from providers.storage.disk import DiskStore
from providers.storage.s3 import connect_s3

async def chunks(size):
    for _ in range(size // 65536):
        yield bytes(65536)

def most_ever():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

async def growth(store):
    await store.store("org/warm-up", chunks(9 * 1024 * 1024), "audio/mpeg")
    before = most_ever()
    assert (await store.store("org/a", chunks(int(sys.argv[1])), "audio/mpeg")).size == int(sys.argv[1])
    if isinstance(store, DiskStore):
        assert sum([len(chunk) async for chunk in store.read("org/a")]) == int(sys.argv[1])
    print(most_ever() - before)

def store(where):
    if where.startswith("http"):
        return connect_s3(endpoint_url=where, bucket="b", access_key_id="a", secret_access_key="s")
    return DiskStore(Path(where), b"", "http://x")

asyncio.run(growth(store(sys.argv[2])))
"""


@pytest.mark.processes
class TestMemory:
    """Neither store holds an object as a whole: beyond one part, a hundred megabytes take no more room than nine."""

    async def _growth(self, where: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _GROWTH, str(HUNDRED_MEGABYTES), where, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        return int(said)

    async def test_a_folder_takes_a_hundred_megabytes_in_small_chunks(self, tmp_path: Path) -> None:
        """A chunk is written before the next one is asked for."""
        assert await self._growth(str(tmp_path)) < 4 * 1024 * 1024

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
            assert await self._growth(lab.url) < PART_BYTES / 2
        assert lengths.count(PART_BYTES) == 1 + HUNDRED_MEGABYTES // PART_BYTES
        assert lengths.count(HUNDRED_MEGABYTES % PART_BYTES) == 1


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


async def attempted(store: RecordingStore, verb: str) -> None:
    """Use one verb again and again until it succeeds: a short time limit may be too short for a busy machine."""
    while True:
        try:
            return await attempt(store, verb)
        except StorageUnavailable:
            continue


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
    "nothing but 200": saying(answer(content_length="")),
    "a listing of nothing in particular": saying(answer(b"<L><Name>b</Name><Contents><Size>1</Size></Contents></L>")),
    "a redirect": saying(answer(b"", "301 Moved Permanently", location="http://127.0.0.1:1/")),
}

SILENCES = {
    "silence": falling_silent(),
    "a head and then silence": falling_silent(answer(content_length="300000")),
}

# What a HEAD request cannot tell, because its answer has no body; and a deletion is asked for, not proven.
INVISIBLE = {
    ("size", "no such bucket"),
    ("read a range", "no such bucket"),
    ("size", "garbage XML"),
    ("size", "a page instead"),
    ("read", "a page instead"),
    ("read a range", "a page instead"),
    ("remove", "a page instead"),
    ("remove", "nothing but 200"),
    ("size", "a listing of nothing in particular"),
    ("read", "a listing of nothing in particular"),
    ("read a range", "a listing of nothing in particular"),
    ("remove", "a listing of nothing in particular"),
    ("check", "a listing of nothing in particular"),
}


@contextmanager
def store_ahead_of_its_server(**limits: Any) -> Iterator[S3Store]:
    """Connect a store to a port nobody listens on yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The library would wait up to a second before its retry.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.retryhandler.delay_exponential", lambda **_: 0)
        store = s3_store(f"http://127.0.0.1:{port}", **limits)
    yield store
    asyncio.run(store.close())


@pytest.fixture(scope="module")
def patient_store() -> Iterator[S3Store]:
    """A store whose time limits no machine is too slow for."""
    seconds = PATIENCE_SECONDS
    with store_ahead_of_its_server(connect_seconds=seconds, read_seconds=seconds, call_seconds=3 * seconds) as store:
        yield store


@pytest.fixture(scope="module")
def impatient_store() -> Iterator[S3Store]:
    """A store whose time limits are short, for what never ends by itself.

    A call and its one retry fit into its limit, so that none goes on behind the back of the next test.
    """
    with store_ahead_of_its_server(connect_seconds=1, read_seconds=1, call_seconds=2.5) as store:
        yield store


@asynccontextmanager
async def behind_a_relay(store: S3Store, s3_url: str, client: "S3Client") -> AsyncIterator[tuple[S3Store, Relay]]:
    """Put an object into the bucket, and a relay between the bucket and the store."""
    port = urlsplit(await store.link(KEY, 1)).port or 0
    with bucket(client):
        await asyncio.to_thread(client.put_object, Bucket=BUCKET, Key=KEY, Body=content(300_000))
        async with relay(s3_url, port) as between:
            yield store, between


@pytest.fixture
async def faulty(patient_store: S3Store, s3_url: str, client: "S3Client") -> AsyncIterator[tuple[S3Store, Relay]]:
    """A store whose bucket lies behind a relay, with an object in it."""
    async with behind_a_relay(patient_store, s3_url, client) as both:
        yield both


@pytest.fixture
async def silenced(impatient_store: S3Store, s3_url: str, client: "S3Client") -> AsyncIterator[tuple[S3Store, Relay]]:
    """The same with short time limits."""
    async with behind_a_relay(impatient_store, s3_url, client) as both:
        yield both


class TestFaultsOfTheBucket:
    """Whatever the S3 server does, the answer is StorageUnavailable, and soon forgotten."""

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_every_verb_fails_alike_and_recovers_at_once(self, faulty: tuple[S3Store, Relay], fault: str) -> None:
        """No other exception escapes, and the next try succeeds."""
        store, between = faulty
        await between.misbehave(FAULTS[fault])
        outcomes = await asyncio.gather(*(attempt(store, verb) for verb in VERBS), return_exceptions=True)
        await between.misbehave(None)
        for verb, error in zip(VERBS, outcomes, strict=True):
            expected = (
                (FileNotFoundError, AssertionError, NoneType) if (verb, fault) in INVISIBLE else StorageUnavailable
            )
            assert isinstance(error, expected), (verb, error)
        for verb in VERBS:
            await attempt(store, verb)

    @pytest.mark.parametrize("silence", SILENCES)
    async def test_every_verb_gives_up_in_silence_and_recovers(
        self, silenced: tuple[S3Store, Relay], silence: str
    ) -> None:
        """Nothing waits for ever for an answer, and nothing is left of the silence afterwards."""
        store, between = silenced
        await between.misbehave(SILENCES[silence])
        outcomes = await asyncio.gather(*(attempt(store, verb) for verb in VERBS), return_exceptions=True)
        await between.misbehave(None)
        for verb, error in zip(VERBS, outcomes, strict=True):
            # A head is all that `size` asks for.
            is_told = (verb, silence) == ("size", "a head and then silence") and error is None
            assert is_told or isinstance(error, StorageUnavailable), (verb, error)
        async with patience():
            for verb in VERBS:
                await attempted(store, verb)

    async def test_a_server_that_is_down_fails_every_verb_and_recovers_at_once(
        self, faulty: tuple[S3Store, Relay]
    ) -> None:
        """Connections refused are StorageUnavailable too; no restart is needed when the server is back."""
        store, between = faulty
        await between.stop()
        for error in await asyncio.gather(*(attempt(store, verb) for verb in VERBS), return_exceptions=True):
            assert isinstance(error, StorageUnavailable)
        await between.start()
        for verb in VERBS:
            await attempt(store, verb)

    @pytest.mark.parametrize(
        ("needle", "reaches_the_server"),
        [
            pytest.param(b"partNumber=2", False, id="a part is refused"),
            pytest.param(b"<CompleteMultipartUpload", False, id="completing is refused"),
            pytest.param(b"<CompleteMultipartUpload", True, id="completing succeeds unnoticed"),
        ],
    )
    async def test_a_broken_upload_leaves_nothing(
        self, faulty: tuple[S3Store, Relay], client: "S3Client", needle: bytes, reaches_the_server: bool
    ) -> None:
        """Parts that were sent are given up; an object that came to be after all is removed."""
        store, between = faulty
        between.sabotage = (
            needle,
            answer(XML_ERROR % b"InternalError", "500 Internal Server Error"),
            reaches_the_server,
        )
        with pytest.raises(StorageUnavailable):
            await attempt(store, "store in parts")
        assert await listed(store) == {KEY}
        assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []

    async def test_a_small_object_stored_unnoticed_is_removed(self, faulty: tuple[S3Store, Relay]) -> None:
        """A lost answer does not leave an object behind."""
        store, between = faulty
        between.sabotage = (b"PUT /", answer(b"", "500 Internal Server Error"), True)
        with pytest.raises(StorageUnavailable):
            await attempt(store, "store")
        assert await listed(store) == {KEY}

    async def test_a_reader_learns_that_an_object_breaks_off(self, faulty: tuple[S3Store, Relay]) -> None:
        """An object that ends too early is an error, not a short object."""
        store, between = faulty
        between.sabotage = (b"GET /", answer(content(100_000), content_length="300000"), False)
        with pytest.raises(StorageUnavailable):
            await whole(store)

    async def test_a_trickling_answer_is_given_up(self, silenced: tuple[S3Store, Relay]) -> None:
        """A byte now and then keeps no call alive beyond its limit."""
        store, between = silenced
        await between.misbehave(repeating(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", every=0.05))
        with pytest.raises(StorageUnavailable):
            await store.check()

    async def test_readiness_is_known_soon(
        self, faulty: tuple[S3Store, Relay], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Checking does not wait as long as storing may."""
        store, between = faulty
        monkeypatch.setattr("providers.storage.s3._CHECK_SECONDS", 0.1)
        await between.misbehave(falling_silent())
        async with patience():
            with pytest.raises(StorageUnavailable):
                await store.check()

    async def test_errors_and_descriptions_keep_the_secret(
        self, faulty: tuple[S3Store, Relay], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither what is raised, with its causes, nor what is logged shows the credentials."""
        store, between = faulty
        await between.misbehave(FAULTS["403"])
        with pytest.raises(StorageUnavailable) as caught:
            await attempt(store, "store")
        told = "".join(traceback.format_exception(caught.value)) + repr(store) + repr(vars(store)) + caplog.text
        assert SECRET_ACCESS_KEY not in told
        assert ACCESS_KEY_ID not in told


class TestRequests:
    """What goes over the wire suits R2."""

    async def test_no_request_carries_what_r2_refuses(self, faulty: tuple[S3Store, Relay], client: "S3Client") -> None:
        """No checksum, trailer, chunked coding, access list or wait for a permission to continue."""
        store, between = faulty
        await store.store(KEY, pieces(content(300_000)), "audio/mpeg")
        for verb in VERBS:
            await attempt(store, verb)
        with pytest.raises(RecordingRejected):
            await store.store("org/x", failing(content(PART_BYTES + 1), RecordingRejected("cut off")), "audio/mpeg")
        heads = between.heads()
        methods = {head.split(" ")[0] for head in heads}
        assert methods == {"PUT", "POST", "GET", "HEAD", "DELETE"}
        for head in heads:
            assert_suits_r2(head)
        assert f"PUT /{BUCKET}/{KEY} HTTP/1.1" in heads[0]
        assert "\r\nContent-Type: audio/mpeg\r\n" in heads[0]
        assert "\r\nContent-Length: 300000\r\n" in heads[0]
        assert client.head_object(Bucket=BUCKET, Key=KEY)["ContentType"] == "audio/mpeg"

    async def test_nor_over_https(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over TLS, too, where the library would rather send a trailer."""
        authority = Authority(tmp_path)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle()))

        async def put(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(3)
            writer.write(answer(etag="tag", connection="close"))

        async with laboratory(put, tls=authority.server("127.0.0.1")) as lab:
            store = s3_store(f"https://{lab.address}")
            await store.store(KEY, pieces(b"abc"), "audio/mpeg")
            await store.close()
        assert_suits_r2(lab.requests[0])

    async def test_calls_are_bounded(self) -> None:
        """Sixteen requests at a time, however many are waiting; each gets its turn."""
        underway = peak = 0
        full = asyncio.Event()

        async def put(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal underway, peak
            underway += 1
            peak = max(peak, underway)
            if underway == 16:
                full.set()
            await full.wait()
            await reader.readexactly(3)
            underway -= 1
            writer.write(answer(etag="tag", connection="close"))

        async with laboratory(put) as lab:
            store = s3_store(lab.url)
            keys = [f"org/{number}" for number in range(50)]
            stored = await asyncio.gather(*(store.store(key, pieces(b"abc"), "audio/mpeg") for key in keys))
            await store.close()
        assert [each.key for each in stored] == keys
        assert peak == 16

    async def test_a_link_is_signed_offline_and_opens_the_object(self, on_s3: S3Store) -> None:
        """Anybody may GET it, in whole or in part; it carries its expiry and no secret."""
        link = await on_s3.link(KEY, 600)
        await on_s3.store(KEY, pieces(content(100_000)), "audio/mpeg")
        async with httpx.AsyncClient() as browser:
            assert (await browser.get(link)).content == content(100_000)
            part = await browser.get(link, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, content(10)[5:])
        query = parse_qs(urlsplit(link).query)
        assert query["X-Amz-Expires"] == ["600"]
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
        assert SECRET_ACCESS_KEY not in link
        assert not [name for name in query if "checksum" in name.lower()]

    @pytest.mark.parametrize("endpoint_url", ["nonsense", "http://", "http://a b"])
    def test_a_senseless_endpoint_is_a_configuration_error(self, endpoint_url: str) -> None:
        """The person who starts the server is told which settings to look at."""
        with pytest.raises(ConfigurationError, match="R2 settings"):
            s3_store(endpoint_url)


def assert_suits_r2(head: str) -> None:
    names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:]}
    assert not [name for name in names if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-acl"))]
    assert names.isdisjoint({"x-amz-trailer", "transfer-encoding", "content-encoding", "expect"})
    assert re.search(r"\r\nX-Amz-Content-SHA256: ([0-9a-f]{64}|UNSIGNED-PAYLOAD)\r\n", head, re.IGNORECASE)
    assert "AWS4-HMAC-SHA256" in head


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def folders_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_dir())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestFolder:
    """What only a folder can get wrong."""

    async def test_nobody_else_may_read_it(self, on_disk: DiskStore, tmp_path: Path) -> None:
        """The files are the owner's, and so is the folder."""
        await on_disk.store(KEY, pieces(b"abc"), "audio/mpeg")
        assert (tmp_path / "recordings" / KEY).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "recordings").stat().st_mode & 0o777 == 0o700

    async def test_symbolic_links_lead_nowhere(self, on_disk: DiskStore, tmp_path: Path) -> None:
        """A link below the root is refused by every verb, listed by none, and what it points to is left alone."""
        root, outside = tmp_path / "recordings", tmp_path / "outside"
        outside.mkdir()
        (outside / "treasure").write_text("gold")
        await on_disk.store("org/a", pieces(b"abc"), "audio/mpeg")
        (root / "folder").symlink_to(outside)
        (root / "file").symlink_to(outside / "treasure")
        (root / "dangling").symlink_to(outside / "new")
        (root / "inside").symlink_to(root / "org")
        for key in ("folder/treasure", "folder/new", "file", "dangling", "inside/a", "inside/b"):
            with pytest.raises(ValueError, match="symbolic link"):
                await on_disk.store(key, pieces(b"abc"), "audio/mpeg")
            with pytest.raises(ValueError, match="symbolic link"):
                await whole(on_disk, key)
            with pytest.raises(ValueError, match="symbolic link"):
                await on_disk.size(key)
            with pytest.raises(ValueError, match="symbolic link"):
                await on_disk.remove(key)
        assert await listed(on_disk) == {"org/a"}
        assert [path.name for path in outside.iterdir()] == ["treasure"]
        assert (outside / "treasure").read_text() == "gold"

    async def test_the_root_itself_may_be_a_link(self, tmp_path: Path) -> None:
        """Whoever runs the server decides where its folder is."""
        (tmp_path / "volume").mkdir()
        (tmp_path / "recordings").symlink_to(tmp_path / "volume")
        store = disk_store(tmp_path / "recordings")
        await store.store(KEY, pieces(b"abc"), "audio/mpeg")
        assert (tmp_path / "volume" / KEY).read_bytes() == b"abc"

    @pytest.mark.processes
    async def test_a_full_disk_is_unavailable_and_left_as_it_was(self, tmp_path: Path) -> None:
        """What does not fit leaves nothing, and what fits afterwards is stored."""
        with small_disk(tmp_path):
            store = disk_store(tmp_path / "recordings")
            await store.store("org/small", pieces(content(ROOM // 4)), "audio/mpeg")
            with pytest.raises(StorageUnavailable):
                await store.store("org/large", pieces(content(ROOM + 1)), "audio/mpeg")
            assert files_below(tmp_path) == ["small"]
            await store.store("org/next", pieces(content(ROOM // 4)), "audio/mpeg")
            assert await whole(store, "org/small") == await whole(store, "org/next") == content(ROOM // 4)

    async def test_a_folder_that_is_none_is_unavailable(self, tmp_path: Path) -> None:
        """A file where the folder should be fails every verb that needs it."""
        (tmp_path / "recordings").write_text("a file")
        store = disk_store(tmp_path / "recordings")
        with pytest.raises(StorageUnavailable):
            await store.check()
        with pytest.raises(StorageUnavailable):
            await store.store(KEY, pieces(b"abc"), "audio/mpeg")
        (tmp_path / "recordings").unlink()
        await store.check()
        await store.store(KEY, pieces(b"abc"), "audio/mpeg")

    async def test_nothing_is_named_before_it_is_durable(
        self, on_disk: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The content is on the disk before the name, and every folder on the way up after it."""
        steps: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def spied_fsync(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            steps.append("content" if path.is_file() else str(path.relative_to(tmp_path)))
            fsync(handle)

        def spied_replace(path: Path, target: Path) -> Path:
            steps.append("name")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", spied_fsync)
        monkeypatch.setattr(Path, "replace", spied_replace)
        await on_disk.store("org/a/recording.mp3", pieces(content(200_000)), "audio/mpeg")
        assert steps == ["content", "name", "recordings/org/a", "recordings/org", "recordings"]

    async def test_folders_come_and_go_with_their_files(self, on_disk: DiskStore, tmp_path: Path) -> None:
        """Neither a removed nor a failed recording leaves empty folders."""
        await on_disk.store(KEY, pieces(b"abc"), "audio/mpeg")
        await on_disk.store("org/other", pieces(b"abc"), "audio/mpeg")
        with pytest.raises(RecordingRejected):
            await on_disk.store("org/x/y/z", failing(b"abc", RecordingRejected("cut off")), "audio/mpeg")
        await on_disk.remove(KEY)
        assert folders_below(tmp_path) == ["org", "recordings"]

    async def test_removing_does_not_get_in_the_way_of_storing(self, on_disk: DiskStore) -> None:
        """A folder that vanishes at the wrong moment is made again."""
        for number in range(60):
            await on_disk.store("org/a/b/c/old", pieces(b"abc"), "audio/mpeg")
            keys = {f"org/a/b/c/{number}.{index}" for index in range(4)}
            new = [on_disk.store(key, pieces(b"abc"), "audio/mpeg") for key in keys]
            await asyncio.gather(on_disk.remove("org/a/b/c/old"), *new)
            assert await listed(on_disk) == keys
            await asyncio.gather(*(on_disk.remove(key) for key in keys))

    @pytest.mark.processes
    async def test_a_killed_process_leaves_no_object_and_is_found_out(self, tmp_path: Path) -> None:
        """Half a recording never has the recording's key; it is listed under another, which can be removed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _STORES_HALF, str(tmp_path), KEY, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
        await process.wait()
        store = disk_store(tmp_path)
        with pytest.raises(FileNotFoundError):
            await store.size(KEY)
        (left,) = await listed(store)
        assert left.startswith(f"{KEY}.")
        assert await store.size(left) == 100_000
        await store.remove(left)
        assert await listed(store) == set()

    async def test_no_file_stays_open(self, on_disk: DiskStore) -> None:
        """Success, failure, cancelling and leaving early all close what they opened."""
        await on_disk.check()
        before = open_files()
        await on_disk.store(KEY, pieces(content(600_000)), "audio/mpeg")
        for _ in range(5):
            with pytest.raises(RecordingRejected):
                await on_disk.store("org/x", failing(b"abc", RecordingRejected("cut off")), "audio/mpeg")
            async with aclosing(on_disk.read(KEY)) as chunks:
                await anext(chunks)
            async with aclosing(on_disk.keys()) as entries:
                await anext(entries)
        assert open_files() == before


_STORES_HALF = """
import asyncio, sys
from pathlib import Path
from providers.storage.disk import DiskStore

async def half():
    yield bytes(100_000)
    print("half", flush=True)
    await asyncio.Event().wait()

asyncio.run(DiskStore(Path(sys.argv[1]), b"", "http://x").store(sys.argv[2], half(), "audio/mpeg"))
"""


class TestFolderLinks:
    """A folder's links are signed by us and believed only as we made them."""

    def _asked(self, link: str) -> tuple[str, str, str]:
        parts = urlsplit(link)
        query = parse_qs(parts.query)
        return parts.path.removeprefix("/recordings/"), query["expires"][0], query["signature"][0]

    async def test_a_link_is_believed_until_it_expires(self, tmp_path: Path) -> None:
        """It names the key below the base URL and is good up to its last second."""
        now = 1_800_000_000.9
        store = DiskStore(tmp_path, SECRET, "http://127.0.0.1:2212/recordings/", clock=lambda: now)
        link = await store.link(KEY, 600)
        assert link.startswith(f"http://127.0.0.1:2212/recordings/{KEY}?expires=1800000600&signature=")
        assert self._asked(link)[0] == KEY
        assert store.verify_link(*self._asked(link))
        now = 1_800_000_599.9
        assert store.verify_link(*self._asked(link))
        now = 1_800_000_600.0
        assert not store.verify_link(*self._asked(link))

    async def test_a_changed_link_is_not_believed(self, on_disk: DiskStore, tmp_path: Path) -> None:
        """Another key, another expiry, another signature, another secret or plain nonsense: none of them opens it."""
        key, expires, signature = self._asked(await on_disk.link(KEY, 600))
        later = str(int(expires) + 1)
        for asked in (
            (key + "x", expires, signature),
            (key, later, signature),
            (key, f" {expires}", signature),
            (key, f"{expires}\n", signature),
            (key, "", signature),
            (key, "never", signature),
            (key, expires, ""),
            (key, expires, signature.upper()),
            (key, expires, signature[:-1]),
            (key, expires, "é" * 64),
            (key, expires, "\ud800"),
            ("\ud800", "\ud800", signature),
            (f"{key}\n{expires}", expires, signature),
        ):
            assert not on_disk.verify_link(*asked)
        assert not DiskStore(tmp_path, b"another", "http://x").verify_link(key, expires, signature)
        assert on_disk.verify_link(key, expires, signature)


# Two that go wrong at the wrong moment.


async def test_a_store_that_is_cancelled_while_it_writes_leaves_nothing(
    on_disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that is under way is waited for, no other is begun, and nothing of it stays."""
    writing, may_write = threading.Event(), threading.Event()
    append = "providers.storage.disk._Draft.append"
    written: list[bytes] = []

    def slowly(draft: Any, chunk: bytes) -> None:
        written.append(chunk)
        writing.set()
        assert may_write.wait(20)
        draft.size += len(chunk)

    monkeypatch.setattr(append, slowly)
    storing = asyncio.create_task(on_disk.store(KEY, pieces(content(10), 5), "audio/mpeg"))
    await asyncio.to_thread(writing.wait, 20)
    storing.cancel()
    await asyncio.sleep(0)
    is_waiting = not storing.done()
    may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await storing

    assert (is_waiting, len(written)) == (True, 1)
    assert [stored.key async for stored in on_disk.keys("org/")] == []


@pytest.mark.parametrize("size", [100, PART_BYTES + 100])
async def test_an_object_in_a_bucket_says_what_it_is(on_s3: S3Store, client: "S3Client", size: int) -> None:
    """A browser plays it, whether it was stored in one piece or in parts."""
    await on_s3.store(KEY, pieces(content(size)), "audio/ogg")

    assert client.head_object(Bucket=BUCKET, Key=KEY)["ContentType"] == "audio/ogg"
