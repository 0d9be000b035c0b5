"""Wake-ups between processes on one machine.

Every listener binds a datagram socket in a folder that belongs to the database; a writer sends one byte to each after
it committed events. A lost byte costs one poll interval, nothing else.
"""

import contextlib
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from persistence.arrivals import Arrivals, Steps

_POLL_SECONDS = 0.05


def _doorbell_folder(path: Path) -> Path:
    # Socket paths are limited to about a hundred bytes, so they cannot live beside the database.
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tether-relay-{os.getuid()}-{name}"


@dataclass
class Doorbell:
    """Rung by a writer after a commit; `path` is the database file."""

    path: Path
    _folder: Path = field(init=False)
    _listeners: list[str] = field(init=False, default_factory=list)
    _listed_at: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self._folder = _doorbell_folder(self.path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self) -> None:
        """Wake every listener of the database; never waits."""
        for address in self._current_listeners():
            try:
                self._socket.sendto(b"!", address)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(address).unlink(missing_ok=True)
            except OSError:
                continue  # a full buffer means the listener has a hint waiting already

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _current_listeners(self) -> list[str]:
        try:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at != self._listed_at:
                self._listeners = [str(entry) for entry in self._folder.iterdir()]
                self._listed_at = changed_at
        except FileNotFoundError:
            return []
        return self._listeners


class Listener:
    """Waits for commits to the database at `path`; `data_version` changes with every one of another connection.

    Made and used in a running event loop.
    """

    def __init__(self, path: Path, data_version: Callable[[], int]) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = self._bind(_doorbell_folder(path))
        self._data_version = data_version
        self._seen = data_version()
        self._rang = False
        self.arrivals = Arrivals(self._socket.fileno(), self._hear)

    def wait(self, timeout: float) -> Steps[tuple[()] | None]:
        """Return None as soon as something may have been committed, nobody after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._rang:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return ()
            if not (yield min(remaining, _POLL_SECONDS)) and self._changed():
                return None
        self._rang = False
        return None

    def close(self) -> None:
        """Let go of the socket and its name."""
        self.arrivals.close()
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
            except FileNotFoundError:  # the last listener left, and took the folder with it
                continue
            return address

    def _changed(self) -> bool:
        before, self._seen = self._seen, self._data_version()
        return self._seen != before

    def _hear(self) -> None:
        self._rang = True
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
