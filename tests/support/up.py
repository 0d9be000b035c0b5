"""`manage.py` as it is really run: a process of its own, in an empty folder, with nothing but what a test sets."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

MANAGE = Path(__file__).parents[2] / "manage.py"
PATIENCE_SECONDS = 40


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return an environment whose state lives in `folder`, with settings named as in `config.py`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    chosen = {"data_dir": folder / "var", "api_port": free_port(), "realtime_port": free_port()} | settings
    return kept | {name.upper(): str(value) for name, value in chosen.items()}


def free_port() -> int:
    """Return a port of the loopback address nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def run(*arguments: str, env: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder without an `.env`."""
    return subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        env=dict(env),
        cwd=_folder(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


class Running:
    """A command that keeps running; what it says is kept in files."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self._errors = errors
        self._lines: list[str] = []

    @property
    def errors(self) -> str:
        """Everything it has written to standard error."""
        return self._errors.read_text()

    @property
    def output(self) -> str:
        """Everything that was read from its standard output."""
        return "".join(self._lines)

    def line(self, wanted: Callable[[str], Any] = bool) -> str:
        """Wait for the next line of standard output that is `wanted`, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while line := self._next_line(deadline):
            if wanted(line):
                return line
        raise AssertionError(f"it ended without saying so:\n{self.output}\n{self.errors}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        self._lines.append(out)
        return self.process.returncode

    def _next_line(self, deadline: float) -> str:
        stream: IO[str] = self.process.stdout  # type: ignore[assignment]
        if not select.select([stream], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise AssertionError(f"it said nothing in time:\n{self.output}\n{self.errors}")
        line = stream.readline()
        self._lines.append(line)
        return line


@contextlib.contextmanager
def running(*arguments: str, env: Mapping[str, str]) -> Iterator[Running]:
    """Start a command and kill what is left of it at the end, its children included."""
    folder = _folder(env)
    errors = folder / f"{'-'.join(arguments)}-{time.monotonic_ns()}.log"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-u", str(MANAGE), *arguments],
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
    try:
        yield Running(process, errors)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Tell whether somebody accepts connections on that port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _folder(env: Mapping[str, str]) -> Path:
    folder = Path(env["DATA_DIR"])
    while not folder.is_dir():
        folder = folder.parent
    return folder if folder.name != "var" else folder.parent


def _text(path: Path) -> str:
    return path.read_text()
