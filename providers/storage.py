"""Where recordings are kept: in an S3 bucket (Cloudflare R2, AWS, MinIO ...) or in a folder, behind the same verbs.

Rules of this file:

1. Keys are ours (`org/<id>/calls/<id>/recording.mp3`) and written once. Anything that is not plain segments of ASCII
   letters, digits, `.`, `_` and `-` is refused with ValueError before anything else happens.
2. An object is there whole or not at all. What goes wrong while it is written leaves nothing behind; what a killed
   process leaves behind is listed by `keys`, so that a sweep finds it.
3. Objects are streamed in both directions; neither store holds more than one part (8 MiB) of one.
4. What a library or the operating system says never gets out: it becomes StorageUnavailable or FileNotFoundError.
   An exception of the iterator that feeds `store` passes through unchanged.
"""

import asyncio
import hashlib
import hmac
import io
import os
import re
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from domain import times
from domain.errors import ConfigurationError, StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

MAX_LINK_SECONDS = 604_800

# R2 wants every part but the last to have the same length; S3 wants at least 5 MiB.
PART_BYTES = 8 * 1024 * 1024

_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}(?:/[A-Za-z0-9._-]{1,200})*")
_MAX_KEY_LENGTH = 512
_READ_BYTES = 64 * 1024
_LISTING = 500
_CONCURRENT_CALLS = 16
_CLEAN_UP_SECONDS = 3
_CHECK_SECONDS = 5
_ATTEMPTS = 20
_ABSENT = frozenset({"NoSuchKey", "NoSuchUpload", "404"})
_SENSELESS = "The recording store did not answer as it should"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was stored: its key, its size in bytes, and the SHA-256 of its content in lower-case hex."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One object in a listing; `modified_at` is in wire form."""

    key: str
    modified_at: str


class RecordingStore(Protocol):
    """Keeps recordings. Every verb may raise StorageUnavailable, and ValueError for a key that is not one of ours."""

    async def store(self, key: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredObject:
        """Write `chunks` under `key`, which must be new: when this fails, nothing is there afterwards."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` up to, not including, `end`; close the generator if you leave it early.

        Raises:
            FileNotFoundError: at the first step, when there is no such object.
        """
        ...

    async def size(self, key: str) -> int:
        """Return the size in bytes: an answer's Content-Length and Content-Range come before its first byte.

        Raises:
            FileNotFoundError: when there is no such object.
        """
        ...

    async def remove(self, key: str) -> None:
        """Remove the object; there need not be one."""
        ...

    async def link(self, key: str, seconds: int) -> str:
        """Return a URL that anybody may GET the object from during the next `seconds` (1 to 604,800).

        It is signed without asking the store, so it does not prove that the object exists.

        Raises:
            ValueError: when `seconds` is out of range.
        """
        ...

    def keys(self, prefix: str = "") -> AsyncGenerator[StoredKey, None]:
        """Yield every object whose key begins with `prefix`, in no particular order.

        What a killed process left half-written in a folder is listed too, under a key that nothing refers to.
        """
        ...

    async def check(self) -> None:
        """Return if the store can be used just now; costs one small request or file."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; the store is not used afterwards."""
        ...


def connect_s3(
    *,
    endpoint_url: str,
    bucket: str,
    access_key_id: str,
    secret_access_key: str,
    region: str = "auto",
    connect_seconds: float = 3,
    read_seconds: float = 10,
    call_seconds: float = 30,
) -> "S3Store":
    """Return the store in `bucket`; connects at the first verb.

    `connect_seconds` and `read_seconds` bound each wait for the network, `call_seconds` one request with its retry.

    Raises:
        ConfigurationError: when the settings cannot be right.
    """
    import boto3  # a tenth of a second and eight megabytes, which a folder does not need
    from botocore.config import Config
    from botocore.handlers import add_expect_header

    # R2 refuses the checksum headers and trailers boto3 adds by default, sometimes as "Unauthorized". The newer retry
    # modes share a quota that an outage uses up, so that after it even a stale connection would fail a call.
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "legacy", "total_max_attempts": 2},
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        max_pool_connections=_CONCURRENT_CALLS,
    )
    try:
        client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=config,
        )
    except Exception as error:
        raise ConfigurationError("The R2 settings cannot be used; check the endpoint URL and the region.") from error
    # R2 never answers "100 Continue"; boto3 would wait a second for it before every upload.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return S3Store(client, bucket, call_seconds)


class S3Store:
    """Recordings in an S3 bucket."""

    def __init__(self, client: "S3Client", bucket: str, call_seconds: float = 30) -> None:
        self._client = client
        self._bucket = _Bucket(client, bucket, call_seconds)

    async def store(self, key: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredObject:
        """Write in one request if it fits into one part, else part by part."""
        upload = _Upload(self._bucket, _checked(key), content_type)
        try:
            async with aclosing(_parts(chunks)) as parts:
                async for part, is_last in parts:
                    await upload.add(part, is_last)
        except BaseException:
            await _to_the_end(upload.discard())
            raise
        return StoredObject(key, upload.size, upload.digest.hexdigest())

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 64 KiB; a range costs one more request, because S3 refuses ranges beyond the end."""
        wanted = {}
        if (start, end) != (0, None):
            start, end = _span(start, end, await self.size(key))
            if start == end:
                return
            wanted = {"Range": f"bytes={start}-{end - 1}"}
        answer = await self._find("get_object", key, **wanted)
        body = answer["Body"]
        try:
            # An answer that does not say how long it is could break off unnoticed.
            _field(answer, "ContentLength")
            while chunk := await self._bucket.run(partial(body.read, _READ_BYTES)):
                yield chunk
        finally:
            body.close()

    async def size(self, key: str) -> int:
        """Ask with a HEAD request."""
        return int(_field(await self._find("head_object", key), "ContentLength"))

    async def _find(self, operation: str, key: str, **parameters: str) -> Any:
        try:
            return await self._bucket.call(operation, Key=_checked(key), **parameters)
        except _Absent as error:
            raise FileNotFoundError("No such recording") from error

    async def remove(self, key: str) -> None:
        """Delete one object; S3 does not mind when there is none."""
        with suppress(_Absent):
            await self._bucket.call("delete_object", Key=_checked(key))

    async def link(self, key: str, seconds: int) -> str:
        """Presign a GET, offline; the link shows the account and the bucket."""
        parameters = {"Bucket": self._bucket.name, "Key": _checked(key)}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=_checked_seconds(seconds))

    async def keys(self, prefix: str = "") -> AsyncGenerator[StoredKey, None]:
        """List page by page."""
        more: dict[str, str] = {}
        while True:
            page = await self._page(Prefix=prefix, MaxKeys=_LISTING, **more)
            for entry in page.get("Contents", ()):
                if _is_key(_field(entry, "Key")):
                    yield StoredKey(entry["Key"], times.to_wire(_field(entry, "LastModified")))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": _field(page, "NextContinuationToken")}

    async def check(self) -> None:
        """List one key, within seconds: this takes no right that a sweep does not need as well."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._page(MaxKeys=1)
        except TimeoutError as error:
            raise StorageUnavailable(_SENSELESS) from error

    async def _page(self, **parameters: Any) -> Any:
        page = await self._bucket.call("list_objects_v2", **parameters)
        # Any XML passes for a listing, an empty one; a real one says whose it is.
        _field(page, "Name")
        return page

    async def close(self) -> None:
        """Close the connections; calls still running end by themselves, within their time limits."""
        self._bucket.close()
        self._client.close()


class _Absent(StorageUnavailable):
    """Raised when the bucket says that it holds no such thing."""


class _Bucket:
    """One bucket, and the only place that hears what botocore says. Its calls block, so they run in a few threads."""

    def __init__(self, client: "S3Client", name: str, call_seconds: float) -> None:
        self.name = name
        self._client = client
        self._call_seconds = call_seconds
        self._threads = ThreadPoolExecutor(_CONCURRENT_CALLS, thread_name_prefix="storage")

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Run one S3 operation on this bucket and return its answer as a dictionary.

        Raises:
            StorageUnavailable: when anything is wrong; _Absent when the object or the upload is not there.
        """
        return await self.run(partial(getattr(self._client, operation), Bucket=self.name, **parameters))

    async def run(self, verb: Callable[[], T]) -> T:
        """Run `verb` in a thread and translate what it raises, as `call` does."""
        try:
            async with asyncio.timeout(self._call_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, verb)
        except self._client.exceptions.ClientError as error:
            is_absent = error.response.get("Error", {}).get("Code") in _ABSENT
            raise (_Absent if is_absent else StorageUnavailable)("The recording store refused a request") from error
        except Exception as error:
            # What gets here depends on what is broken: botocore's own errors, its parsers', urllib3's, http.client's.
            raise StorageUnavailable(_SENSELESS) from error

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Upload:
    """One object on its way into a bucket; knows what has to be undone."""

    def __init__(self, bucket: _Bucket, key: str, content_type: str) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._bucket = bucket
        self._key = key
        self._content_type = content_type
        self._upload_id: str | None = None
        self._tags: list[str] = []
        self._may_exist = False

    async def add(self, part: io.BytesIO, is_last: bool) -> None:
        """Send the next part and let go of it; after the last one the object exists."""
        with part:
            await _to_the_end(asyncio.to_thread(self._count, part))
            if is_last and self._upload_id is None:
                await self._put(part)
                return
            await self._send(part)
        if is_last:
            await self._complete()

    def _count(self, part: io.BytesIO) -> None:
        with part.getbuffer() as content:
            self.size += content.nbytes
            self.digest.update(content)

    async def _put(self, part: io.BytesIO) -> None:
        self._may_exist = True
        _field(await self._call("put_object", Body=part, ContentType=self._content_type), "ETag")

    async def _send(self, part: io.BytesIO) -> None:
        if self._upload_id is None:
            begun = await self._call("create_multipart_upload", ContentType=self._content_type)
            self._upload_id = _field(begun, "UploadId")
        number = len(self._tags) + 1
        sent = await self._call("upload_part", UploadId=self._upload_id, PartNumber=number, Body=part)
        self._tags.append(_field(sent, "ETag"))

    async def _complete(self) -> None:
        self._may_exist = True
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self._tags, start=1)]
        ended = await self._call(
            "complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts}
        )
        _field(ended, "ETag")

    async def discard(self) -> None:
        """Undo what was done, as far as the bucket lets us."""
        if self._upload_id is not None:
            await self._undo("abort_multipart_upload", UploadId=self._upload_id)
        if self._may_exist:
            await self._undo("delete_object")

    async def _undo(self, operation: str, **parameters: Any) -> None:
        try:
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                await self._call(operation, **parameters)
        except _Absent:
            # An upload that was completed after all, unnoticed by us, is no upload any more.
            pass
        except (StorageUnavailable, TimeoutError):
            _log.warning("storage.left_behind", key=self._key)

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self._bucket.call(operation, Key=self._key, **parameters)


def _field(answer: dict[str, Any], name: str) -> Any:
    """Return what an answer must hold if it came from an S3 server and not from something in between."""
    value = answer.get(name)
    if value is None or value == "":
        raise StorageUnavailable(_SENSELESS)
    return value


async def _parts(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[io.BytesIO, bool], None]:
    """Regroup `chunks` into parts of exactly PART_BYTES and a last one, which alone may be shorter or empty."""
    # A file-like body is sent in small blocks, each with the connection's time limit; bytes would go out in one
    # piece that has to be through within that limit.
    part = io.BytesIO()
    async for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if part.tell() == PART_BYTES:
                yield _rewound(part), False
                part = io.BytesIO()
            room = PART_BYTES - part.tell()
            part.write(rest[:room])
            rest = rest[room:]
    yield _rewound(part), True


def _rewound(part: io.BytesIO) -> io.BytesIO:
    part.seek(0)
    return part


class DiskStore:
    """Recordings in a folder. `link_secret` signs links below `base_url`, which the API serves.

    Nothing below `root` is reached through a symbolic link.
    """

    def __init__(self, root: Path, link_secret: bytes, base_url: str, clock: Callable[[], float] = time.time) -> None:
        self._root = root.resolve()
        self._link_secret = link_secret
        self._base_url = base_url.rstrip("/")
        self._clock = clock

    async def store(self, key: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredObject:  # noqa: ARG002
        """Write beside the final place, make it durable, then rename; a folder keeps no content type."""
        draft = _Draft(self._root, self._path(key))
        try:
            await _on_disk(draft.begin)
            async for chunk in chunks:
                await _on_disk(draft.append, chunk)
            await _on_disk(draft.publish)
        except BaseException:
            await _on_disk(draft.discard)
            raise
        return StoredObject(key, draft.size, draft.digest.hexdigest())

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 64 KiB."""
        with await self._opened(key) as file:
            start, end = _span(start, end, os.fstat(file.fileno()).st_size)
            file.seek(start)
            while start < end and (chunk := await _on_disk(file.read, min(_READ_BYTES, end - start))):
                yield chunk
                start += len(chunk)

    async def size(self, key: str) -> int:
        """Open the file and ask for its length."""
        with await self._opened(key) as file:
            return os.fstat(file.fileno()).st_size

    async def remove(self, key: str) -> None:
        """Remove the file, and the folders it leaves empty."""
        await _on_disk(self._remove, self._path(key))

    async def link(self, key: str, seconds: int) -> str:
        """Sign key and expiry; whoever serves the link asks `verify_link`."""
        expires = str(int(self._clock()) + _checked_seconds(seconds))
        return f"{self._base_url}/{_checked(key)}?expires={expires}&signature={self._signature(key, expires)}"

    def verify_link(self, key: str, expires: str, signature: str) -> bool:
        """Tell whether `link` made these three, as they came in the URL, and whether the link is still good."""
        expected = self._signature(key, expires).encode()
        return hmac.compare_digest(expected, signature.encode(errors="replace")) and self._clock() < int(expires)

    def _signature(self, key: str, expires: str) -> str:
        text = f"recording link\n{key}\n{expires}".encode(errors="replace")
        return hmac.new(self._link_secret, text, hashlib.sha256).hexdigest()

    async def keys(self, prefix: str = "") -> AsyncGenerator[StoredKey, None]:
        """Walk the folders; files that vanish meanwhile are left out."""
        with closing(_walk(self._root, prefix)) as walk:
            while batch := await _on_disk(_next_batch, walk):
                for entry in batch:
                    yield entry

    async def check(self) -> None:
        """Write a byte to a file without a name."""
        await _on_disk(self._try_writing)

    async def close(self) -> None:
        """Do nothing: no file stays open between verbs."""

    def _try_writing(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._root, buffering=0) as file:
            file.write(b"\0")

    def _path(self, key: str) -> Path:
        path = self._root / _checked(key)
        if path.resolve() != path:
            raise ValueError("A recording's path must not lead through a symbolic link")
        return path

    async def _opened(self, key: str) -> io.FileIO:
        file = await _on_disk(_open_if_present, self._path(key))
        if file is None:
            raise FileNotFoundError("No such recording")
        return file

    def _remove(self, path: Path) -> None:
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
            _prune(path.parent, self._root)


class _Draft:
    """One file on its way into the folder; blocking. `discard` undoes whatever the others did."""

    def __init__(self, root: Path, path: Path) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._root = root
        self._path = path
        self._draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        self._file: io.FileIO | None = None
        self._is_published = False

    def begin(self) -> None:
        """Create the file, and the folders above it."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever removes the last file of a folder removes the folder too, perhaps in the middle of these two steps.
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError, FileExistsError):
                for folder in reversed(list(_folders(self._path.parent, self._root))):
                    folder.mkdir(mode=0o700, exist_ok=True)
                self._file = io.FileIO(self._draft, "x", opener=_private)
                return
        raise OSError("The folder keeps disappearing")

    def append(self, chunk: bytes) -> None:
        """Write all of `chunk`."""
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._opened().write(rest) :]
        self.size += len(chunk)
        self.digest.update(chunk)

    def publish(self) -> None:
        """Make content, name and folders durable."""
        os.fsync(self._opened().fileno())
        self._opened().close()
        self._draft.replace(self._path)
        self._is_published = True
        for folder in _folders(self._path.parent, self._root):
            _sync(folder)

    def discard(self) -> None:
        """Remove the file, in whichever of its two places it is."""
        if self._file is not None:
            self._file.close()
        try:
            (self._path if self._is_published else self._draft).unlink(missing_ok=True)
        except OSError:
            _log.warning("storage.left_behind", file=self._path.name)
        _prune(self._path.parent, self._root)

    def _opened(self) -> io.FileIO:
        if self._file is None:
            raise ValueError("A draft that was not begun")
        return self._file


async def _on_disk(work: Callable[..., T], *arguments: Any) -> T:
    """Run blocking `work` in a thread, to its end: a file must not be closed under a thread that still writes to it."""
    try:
        return await _to_the_end(asyncio.to_thread(work, *arguments))
    except OSError as error:
        raise StorageUnavailable("The recordings folder cannot be used") from error


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even if cancelled meanwhile, and only then be cancelled."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    task.exception()
    raise cancelled


def _open_if_present(path: Path) -> io.FileIO | None:
    try:
        return io.FileIO(path, "r", opener=_without_links)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _folders(folder: Path, root: Path) -> Iterator[Path]:
    """Yield `folder` and the folders above it, up to and including `root`."""
    yield folder
    while folder != root:
        folder = folder.parent
        yield folder


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _prune(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it, up to the first that is not empty; never `root`."""
    for each in _folders(folder, root):
        try:
            if each != root:
                each.rmdir()
        except OSError:
            return


def _walk(folder: Path, prefix: str, above: str = "") -> Generator[StoredKey, None, None]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            key = f"{above}{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                yield from _listed(entry, key, prefix)
            elif f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                yield from _walk(Path(entry.path), prefix, f"{key}/")


def _listed(entry: os.DirEntry[str], key: str, prefix: str) -> Iterator[StoredKey]:
    if key.startswith(prefix) and _is_key(key) and entry.is_file(follow_symlinks=False):
        with suppress(FileNotFoundError):
            modified_at = datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
            yield StoredKey(key, times.to_wire(modified_at))


def _next_batch(walk: Iterator[StoredKey]) -> list[StoredKey]:
    return list(islice(walk, _LISTING))


# Checks that both stores share.


def _checked(key: str) -> str:
    if not _is_key(key):
        raise ValueError("Not the key of a recording")
    return key


def _is_key(key: str) -> bool:
    return len(key) <= _MAX_KEY_LENGTH and _KEY.fullmatch(key) is not None and {".", ".."}.isdisjoint(key.split("/"))


def _checked_seconds(seconds: int) -> int:
    if not 1 <= seconds <= MAX_LINK_SECONDS:
        raise ValueError(f"A link lasts from 1 to {MAX_LINK_SECONDS} seconds")
    return seconds


def _span(start: int, end: int | None, size: int) -> tuple[int, int]:
    """Return the part of `start` to `end` that exists, as a slice would."""
    if start < 0 or (end is not None and end < 0):
        raise ValueError("A range does not begin before the first byte")
    start = min(start, size)
    return start, max(start, size if end is None else min(end, size))
