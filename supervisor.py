"""Running the API and the broadcaster side by side, as one thing that starts and stops."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

GRACE_SECONDS = 12


class Supervisor:
    """Starts commands, waits, and stops all of them as soon as one ends or a signal says so."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def __enter__(self) -> "Supervisor":
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._on_signal)
        self._children = [subprocess.Popen([sys.executable, *command]) for command in self._commands]  # noqa: S603
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def is_running(self) -> bool:
        """Whether every command still runs and nobody asked to stop."""
        return not self._stopping and all(child.poll() is None for child in self._children)

    def wait(self) -> int:
        """Wait until it is over; return 0 after a signal, or the status of a command that ended by itself."""
        while self.is_running:
            time.sleep(0.1)
        if self._stopping:
            return 0
        return next((child.returncode for child in self._children if child.returncode), 1)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._stopping = True

    def _stop(self) -> None:
        running = [child for child in self._children if child.poll() is None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for child in running:
            try:
                child.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
