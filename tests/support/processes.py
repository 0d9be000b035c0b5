"""`manage.py` as it is really run: a process of its own, in an empty folder, with nothing but what a test sets."""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

MANAGE = Path(__file__).parents[2] / "manage.py"


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return an environment whose state lives in `folder`, with settings named as in `config.py`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    chosen = {"data_dir": folder / "var", "api_port": free_port(), "realtime_port": free_port()} | settings
    return kept | {name.upper(): str(value) for name, value in chosen.items()}


class Child(Protocol):
    """A process, as `subprocess.Popen` shows it."""

    pid: int
    returncode: Any

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless it has ended."""


def start(
    *arguments: str,
    env: Mapping[str, str],
    folder: Path,
    module: str = "manage",
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    descriptors: tuple[int, int] | None = None,
) -> Child:
    """Start `main` of a module, `manage.py` unless another is named, as a process of its own that leads a session.

    It is forked from a process that has loaded the relay, which is most of what a start takes. Where the environment
    tells Python how to start, as PYTHONPATH does, the interpreter is started instead. `descriptors` are the soft and
    the hard limit of open files it starts with.
    """
    if module == "manage" and any(name.startswith("PYTHON") and name != "PYTHONUNBUFFERED" for name in env):
        return start_anew(*arguments, env=env, folder=folder, stdin=stdin, stdout=stdout, stderr=stderr)
    sys.audit("tests.fork", module, arguments)
    wanted = {
        "module": module,
        "arguments": [str(MANAGE), *arguments],
        "environment": dict(env),
        "folder": str(folder),
        "descriptors": descriptors,
    }
    with Path(os.devnull).open("r+b") as nothing:
        streams = [nothing.fileno() if one == subprocess.DEVNULL else one for one in (stdin, stdout, stderr)]
        return _zygote().fork(wanted, streams)


def start_anew(
    *arguments: str,
    env: Mapping[str, str],
    folder: Path,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> Child:
    """Start `manage.py` as a person does: by a new interpreter, which loads everything."""
    return subprocess.Popen(
        [sys.executable, str(MANAGE), *arguments],
        env=dict(env),
        cwd=folder,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def end(process: Child) -> None:
    """Kill what is left of a process that leads a session, its children included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(
    *arguments: str, env: Mapping[str, str], folder: Path, stdin: str = "", anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a process of its own, in a folder without an `.env`."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        begin = start_anew if anew else start
        process = begin(
            *arguments,
            env=env,
            folder=folder,
            stdin=given.fileno(),
            stdout=output.fileno(),
            stderr=errors.fileno(),
        )
        try:
            status = process.wait(PATIENCE_SECONDS)
        finally:
            end(process)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, output.read().decode(), errors.read().decode())


class _Forked:
    """A process that the zygote forked; its exit status comes through a pipe."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._reading = threading.Lock()
        weakref.finalize(self, os.close, status)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if self.returncode is None and not poll.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        with self._reading:
            if self.returncode is None:
                self.returncode = int(os.read(self._status, 16) or -signal.SIGKILL)
            return self.returncode

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


class _Zygote:
    """The process that forks; see `zygote.py`."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = str(Path(__file__).with_name("zygote.py"))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, program, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._one_at_a_time = threading.Lock()

    def fork(self, wanted: dict[str, Any], streams: Sequence[int]) -> _Forked:
        """Start the process that is wanted; the streams are its standard input, output and errors."""
        status, written = os.pipe()
        try:
            with self._one_at_a_time:
                umask = os.umask(0o077)
                os.umask(umask)
                message = json.dumps(wanted | {"umask": umask}).encode()
                socket.send_fds(self._requests, [message], [*streams, written])
                answer = self._requests.recv(64)
        finally:
            os.close(written)
        assert answer, "the zygote ended"
        return _Forked(int(answer), status)

    def close(self) -> None:
        """End it, and what it started and still runs."""
        self._requests.close()
        self._process.wait()


@functools.cache
def _zygote() -> _Zygote:
    zygote = _Zygote()
    atexit.register(zygote.close)
    return zygote


@dataclass(frozen=True)
class Running:
    """A command that keeps running; what it says is kept in two files."""

    process: Child
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
    *arguments: str,
    env: Mapping[str, str],
    folder: Path,
    descriptors: tuple[int, int] | None = None,
    anew: bool = False,
) -> Iterator[Running]:
    """Start a command in `folder`, and kill what is left of it at the end, its children included.

    `descriptors` are the soft and the hard limit of open files it starts with. With `anew` a new interpreter starts it.
    """
    name = f"{arguments[0]}-{time.monotonic_ns()}"
    output, errors = folder / f"{name}.out", folder / f"{name}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        begin = start_anew if anew else partial(start, descriptors=descriptors)
        process = begin(
            *arguments,
            env=dict(env) | {"PYTHONUNBUFFERED": "1"},
            folder=folder,
            stdout=out.fileno(),
            stderr=err.fileno(),
        )
    try:
        yield Running(process, output, errors)
    finally:
        end(process)


def accepts(port: int | str) -> bool:
    """Tell whether somebody accepts connections on that port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
    except OSError:
        return False
    return True
