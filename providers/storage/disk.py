"""Recordings in a folder, and links to them that the API serves."""

import asyncio
import hashlib
import hmac
import io
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import structlog

from domain import times
from domain.errors import StorageUnavailable
from providers.storage.keys import StoredKey, StoredObject, checked, checked_seconds, is_key, span, to_the_end

T = TypeVar("T")

_READ_BYTES = 64 * 1024
_LISTING = 500
_ATTEMPTS = 20

_log = structlog.get_logger()


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
            start, end = span(start, end, os.fstat(file.fileno()).st_size)
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
        expires = str(int(self._clock()) + checked_seconds(seconds))
        return f"{self._base_url}/{checked(key)}?expires={expires}&signature={self._signature(key, expires)}"

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
        path = self._root / checked(key)
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
        return await to_the_end(asyncio.to_thread(work, *arguments))
    except OSError as error:
        raise StorageUnavailable("The recordings folder cannot be used") from error


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
    if key.startswith(prefix) and is_key(key) and entry.is_file(follow_symlinks=False):
        with suppress(FileNotFoundError):
            modified_at = datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
            yield StoredKey(key, times.to_wire(modified_at))


def _next_batch(walk: Iterator[StoredKey]) -> list[StoredKey]:
    return list(islice(walk, _LISTING))


# Checks that both stores share.
