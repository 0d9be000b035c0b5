"""Recordings in an S3 bucket: Cloudflare R2, AWS, MinIO and the like."""

import asyncio
import hashlib
import io
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from domain import times
from domain.errors import ConfigurationError, StorageUnavailable
from providers.storage.keys import StoredKey, StoredObject, checked, checked_seconds, is_key, span, to_the_end

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

# R2 wants every part but the last to have the same length; S3 wants at least 5 MiB.
PART_BYTES = 8 * 1024 * 1024

_READ_BYTES = 64 * 1024
_LISTING = 500
_CONCURRENT_CALLS = 16
_CLEAN_UP_SECONDS = 3
_CHECK_SECONDS = 5
_ABSENT = frozenset({"NoSuchKey", "NoSuchUpload", "404"})
_SENSELESS = "The recording store did not answer as it should"

_log = structlog.get_logger()


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
        upload = _Upload(self._bucket, checked(key), content_type)
        try:
            async with aclosing(_parts(chunks)) as parts:
                async for part, is_last in parts:
                    await upload.add(part, is_last)
        except BaseException:
            await to_the_end(upload.discard())
            raise
        return StoredObject(key, upload.size, upload.digest.hexdigest())

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 64 KiB; a range costs one more request, because S3 refuses ranges beyond the end."""
        wanted = {}
        if (start, end) != (0, None):
            start, end = span(start, end, await self.size(key))
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
            return await self._bucket.call(operation, Key=checked(key), **parameters)
        except _Absent as error:
            raise FileNotFoundError("No such recording") from error

    async def remove(self, key: str) -> None:
        """Delete one object; S3 does not mind when there is none."""
        with suppress(_Absent):
            await self._bucket.call("delete_object", Key=checked(key))

    async def link(self, key: str, seconds: int) -> str:
        """Presign a GET, offline; the link shows the account and the bucket."""
        parameters = {"Bucket": self._bucket.name, "Key": checked(key)}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=checked_seconds(seconds))

    async def keys(self, prefix: str = "") -> AsyncGenerator[StoredKey, None]:
        """List page by page."""
        more: dict[str, str] = {}
        while True:
            page = await self._page(Prefix=prefix, MaxKeys=_LISTING, **more)
            for entry in page.get("Contents", ()):
                if is_key(_field(entry, "Key")):
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
            await to_the_end(asyncio.to_thread(self._count, part))
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
