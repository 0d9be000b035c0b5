"""Wake-ups between the processes of one machine that use the same embedded database.

Each follower binds a datagram socket in a folder that belongs to the database. A writer sends one byte to each of them
after it committed events. The database is authoritative; the datagram only wakes the reader. A lost one costs one poll
interval.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


def _folder_of(path: Path) -> Path:
    # Socket paths are limited to about a hundred bytes, so they cannot be beside the database.
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tether-relay-{os.getuid()}-{name}"


@dataclass
class Waker:
    """Wakes the followers of the database file at `path` after a commit."""

    path: Path
    _folder: Path = field(init=False)
    _addresses: list[str] = field(init=False, default_factory=list)
    _listed_at: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self._folder = _folder_of(self.path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def wake(self) -> None:
        """Send a wake-up to every follower of the database; never waits."""
        for address in self._current_addresses():
            try:
                self._socket.sendto(b"!", address)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(address).unlink(missing_ok=True)
            except OSError:
                continue  # a full buffer means that a wake-up is waiting already

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _current_addresses(self) -> list[str]:
        try:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at != self._listed_at:
                self._addresses = [str(entry) for entry in self._folder.iterdir()]
                self._listed_at = changed_at
        except FileNotFoundError:
            return []
        return self._addresses


class WakeUps:
    """Receives the wake-ups for the database file at `path`, in the running event loop."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = self._bind(_folder_of(path))
        self._received = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # The socket stays registered: to register it for each wait costs two more system calls an event.
        self._loop.add_reader(self._socket, self._receive)

    async def wait(self, seconds: float) -> bool:
        """Return True once a wake-up has come since the last call, False after `seconds`."""
        self._receive()
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._received.wait()
        has_received = self._received.is_set()
        self._received.clear()
        return has_received

    def close(self) -> None:
        """Close the socket and remove its name."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._address.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others may still listen
            self._address.parent.rmdir()

    def _bind(self, folder: Path) -> Path:
        address = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        while True:
            folder.mkdir(mode=0o700, exist_ok=True)
            try:
                self._socket.bind(str(address))
                address.chmod(0o600)
            except FileNotFoundError:  # the last listener left, and removed the folder
                continue
            return address

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                self._received.set()
