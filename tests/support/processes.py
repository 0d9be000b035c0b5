"""`manage.py` as it is really run: a process of its own, in an empty folder, with nothing but what a test sets."""

import atexit
import contextlib
import functools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

MANAGE = Path(__file__).parents[2] / "manage.py"


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return an environment whose state lives in `folder`, with settings named as in `config.py`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    chosen = {"data_dir": folder / "var", "api_port": free_port(), "realtime_port": free_port()} | settings
    return kept | {name.upper(): str(value) for name, value in chosen.items()}


def run(*arguments: str, env: Mapping[str, str], folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a process of its own, in a folder without an `.env`."""
    wanted = {
        "arguments": arguments,
        "environment": dict(env),
        "folder": str(folder),
        "stdin": stdin,
        "timeout": round(PATIENCE_SECONDS),
    }
    with _one_at_a_time:
        zygote = _zygote()
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(json.dumps(wanted) + "\n")
        zygote.stdin.flush()
        done = json.loads(zygote.stdout.readline())
    return subprocess.CompletedProcess(arguments, done["status"], done["output"], done["errors"])


_one_at_a_time = threading.Lock()


@functools.cache
def _zygote() -> subprocess.Popen[str]:
    # Most of what a command takes is the loading of its modules, so that is done once.
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        env=dict(os.environ) | {"COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


@dataclass(frozen=True)
class Running:
    """A command that keeps running; what it says is kept in two files."""

    process: subprocess.Popen[bytes]
    output_file: Path
    errors_file: Path

    @property
    def output(self) -> str:
        """Everything it has written to standard output."""
        return self.output_file.read_text()

    @property
    def errors(self) -> str:
        """Everything it has written to standard error."""
        return self.errors_file.read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until `condition` holds; it must do so before the command ends."""

        def happened() -> Any:
            ended = self.process.poll() is not None
            found = condition()
            assert found or not ended, f"it ended with {self.process.returncode}\n{self.output}\n{self.errors}"
            return found

        try:
            wait_until(happened)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}\n{self.errors}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in listed.split()]


@contextlib.contextmanager
def running(
    *arguments: str, env: Mapping[str, str], folder: Path, descriptors: tuple[int, int] | None = None
) -> Iterator[Running]:
    """Start a command in `folder`, and kill what is left of it at the end, its children included.

    `descriptors` are the soft and the hard limit of open files it starts with.
    """
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, descriptors) if descriptors else None
    name = f"{arguments[0]}-{time.monotonic_ns()}"
    output, errors = folder / f"{name}.out", folder / f"{name}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, str(MANAGE), *arguments],
            env=dict(env) | {"PYTHONUNBUFFERED": "1"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=limit,
        )
    try:
        yield Running(process, output, errors)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def accepts(port: int | str) -> bool:
    """Tell whether somebody accepts connections on that port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
    except OSError:
        return False
    return True
