"""Ports for servers that are told theirs before they start.

A port from below the range the kernel hands out by itself is nobody's by chance, and a lock on a file of its name,
kept until the process ends, keeps it from other tests on the machine.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_FIRST, _END = 20_000, 32_000
_leases: dict[int, IO[bytes]] = {}


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on or was given."""
    folder = Path(tempfile.gettempdir()) / f"relay-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return next(port for port in _candidates() if _is_ours(folder, port))


def _candidates() -> Iterator[int]:
    # Processes begin at different places and go on from there, so that a port is not given twice in a row.
    count = _END - _FIRST
    begin = max(_leases) + 1 if _leases else _FIRST + os.getpid() * 97 % count
    return (_FIRST + (begin - _FIRST + step) % count for step in range(count))


def _is_ours(folder: Path, port: int) -> bool:
    if port in _leases:
        return False
    lease = (folder / str(port)).open("wb")
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        lease.close()
        return False
    _leases[port] = lease
    return True
