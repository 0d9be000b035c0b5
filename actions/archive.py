"""The container of a backup: a tar file compressed with gzip, which any tar program reads.

Members, in this order: `manifest.json`, `secrets.json` if it is included, `relay.db`, one file in `recordings/` for
each recording, and `SHA256SUMS` with the digest of every other member in the format of `sha256sum --check`. A file
without `SHA256SUMS` at its end is not whole.
"""

import contextlib
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from domain.errors import BackupRejected

MANIFEST = "manifest.json"
SECRETS = "secrets.json"
DATABASE = "relay.db"
RECORDINGS = "recordings/"
SUMS = "SHA256SUMS"

CHUNK = 256 * 1024

# Audio does not get smaller, and the database hardly gets smaller by more effort.
_EFFORT = 1
_GZIP = 31
_MOST_IN_MEMORY = 256 * 1024 * 1024
_CUT_OFF = (
    f"It is not a whole backup: {SUMS}, its last member, is missing. It was cut off while it was made or copied; "
    "use another one."
)


class Writer:
    """Writes members one after the other, as chunks of the compressed file; `modified_at` is in Unix seconds."""

    def __init__(self, modified_at: float) -> None:
        self._modified_at = modified_at
        self._compressor = zlib.compressobj(_EFFORT, zlib.DEFLATED, _GZIP)
        self._sums: list[str] = []

    async def member(self, name: str, size: int, content: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield a member whose content has `size` bytes.

        Raises:
            BackupRejected: if the content has more or fewer bytes.
        """
        digest, written = hashlib.sha256(), 0
        yield self._compressor.compress(self._head(name, size))
        async for chunk in content:
            written += len(chunk)
            digest.update(chunk)
            yield self._compressor.compress(chunk)
        if written != size:
            raise BackupRejected(f"{name} has {written} bytes instead of {size}: it changed while it was read.")
        yield self._compressor.compress(bytes(-size % tarfile.BLOCKSIZE))
        self._sums.append(f"{digest.hexdigest()}  {name}\n")

    async def end(self) -> AsyncGenerator[bytes, None]:
        """Yield the digests and the end of the file."""
        sums = "".join(self._sums).encode()
        async for chunk in self.member(SUMS, len(sums), in_one(sums)):
            yield chunk
        yield self._compressor.compress(bytes(2 * tarfile.BLOCKSIZE)) + self._compressor.flush()

    def _head(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, int(self._modified_at), 0o600
        return info.tobuf(tarfile.PAX_FORMAT)


async def in_one(content: bytes) -> AsyncGenerator[bytes, None]:
    """Yield `content`."""
    yield content


@dataclass
class Member:
    """A member that is being read. Read it before the next one; what is left unread is skipped, and counted too."""

    name: str
    size: int
    _content: IO[bytes]

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def chunks(self) -> Iterator[bytes]:
        """Yield the content."""
        while chunk := self._next():
            self._digest.update(chunk)
            yield chunk

    def whole(self) -> bytes:
        """Return the content of a small member."""
        if self.size > _MOST_IN_MEMORY:
            raise BackupRejected(f"{self.name} is larger than any of its kind.")
        return b"".join(self.chunks())

    def _next(self) -> bytes:
        with _reading():
            return self._content.read(CHUNK)

    def digest(self) -> str:
        """Read what is left, and return the SHA-256 of the content."""
        for _ in self.chunks():
            pass
        return self._digest.hexdigest()


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield every member but the digests, to be read one after the other; at the end, compare their digests.

    Nothing that was read is to be relied on before the last step has returned.

    Raises:
        BackupRejected: if the file is damaged, incomplete, or no backup.
    """
    found: dict[str, str] = {}
    stated: dict[str, str] | None = None
    with (
        _reading(),
        gzip.GzipFile(fileobj=file, mode="rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in _files(tar):
            if stated is not None or member.name in found:
                raise BackupRejected(f"The file is not a backup: it has an unexpected {member.name}.")
            if member.name == SUMS:
                stated = _read_sums(member.whole())
                continue
            yield member
            found[member.name] = member.digest()
        while plain.read(CHUNK):  # the end of the compressed stream has a checksum too
            pass
    if stated is None:
        raise BackupRejected(_CUT_OFF)
    different = sorted(name for name in stated.keys() | found.keys() if stated.get(name) != found.get(name))
    if different:
        raise BackupRejected(f"The backup is damaged: {different[0]} is not what {SUMS} says. Use another one.")


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BackupRejected(f"The file is not a whole backup: {error}. Use another one.") from error


def _files(tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        content = tar.extractfile(info) if info.isreg() else None
        if content is None:
            raise BackupRejected(f"The file is not a backup: {info.name} in it is not a plain file.")
        yield Member(info.name, info.size, content)


def _read_sums(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
