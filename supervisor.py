"""Running the API and the broadcaster side by side, as one thing that starts and stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

# Longer than either takes to stop by itself: the API `GRACE_SECONDS` of commands/serving.py, the broadcaster at most as
# long (REALTIME_DRAIN_SECONDS).
GRACE_SECONDS = 12

# Names the reading end of a pipe nobody writes to: it comes to its end with the supervisor, however that goes.
_LIFELINE = "SUPERVISOR_LIFELINE"


def follow() -> None:
    """Stop this process, as a SIGTERM would, once the supervisor that started it is gone; if none did, do nothing."""
    lifeline = os.environ.pop(_LIFELINE, None)
    if lifeline is not None:
        threading.Thread(target=_stop_at_end_of, args=(int(lifeline),), name="lifeline", daemon=True).start()


def _stop_at_end_of(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Starts commands, waits, and stops all of them as soon as one ends or a signal says so.

    Commands that `follow` stop by themselves when it is killed.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def __enter__(self) -> "Supervisor":
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._on_signal)
        theirs, self._lifeline = os.pipe()
        self._children = [self._start(command, theirs) for command in self._commands]
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        os.close(self._lifeline)

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

    def _start(self, command: Sequence[str], lifeline: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {_LIFELINE: str(lifeline)}
        return subprocess.Popen([sys.executable, *command], env=environment, pass_fds=[lifeline])  # noqa: S603

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
