"""Starts processes of the relay without loading everything anew: loads it once, and forks for each.

Reads requests from the socket whose descriptor is the only argument: one JSON object a message, with the standard
streams of the process and the writing end of a pipe beside it. Each is answered with the process id. The exit status
is written to the pipe once the process has ended. What still runs when the socket ends is killed.
"""

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

_ROOT = Path(__file__).parents[2]
_LARGEST_REQUEST = 1 << 17
_DESCRIPTORS = 4
_INTERRUPTED = -int(signal.SIGINT)
_SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
sys.path.insert(0, str(_ROOT))


def main() -> None:
    """Serve until the socket ends."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    _load()
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end the socket
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 10)
            _reap(running)
        if requests.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, _DESCRIPTORS)
            if not message:
                break
            process = _fork(json.loads(message), descriptors)
            running[process] = descriptors[-1]
            requests.send(str(process).encode())
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


def _load() -> None:
    modules = [f"commands.{path.stem}" for path in sorted((_ROOT / "commands").glob("[a-z]*.py"))]
    for module in ("manage", *modules, "realtime.server", "realtime.recollection", "tests.realtime.station"):
        importlib.import_module(module)
    assert threading.active_count() == 1, "what a thread holds would be held for ever in the processes"
    gc.freeze()


def _reap(running: dict[int, int]) -> None:
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        pipe = running.pop(process)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(pipe)


def _fork(wanted: dict[str, Any], descriptors: Sequence[int]) -> int:
    process = os.fork()
    if process == 0:
        _become(wanted, descriptors[:3])
    for stream in descriptors[:3]:
        os.close(stream)
    return process


def _become(wanted: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Be the process that Python would be, started with the arguments, and end as it would."""
    status = 1
    try:
        _settle(wanted, streams)
        importlib.import_module(wanted["module"]).main()
        status = 0
    except SystemExit as end:
        status = _status(end)
    except KeyboardInterrupt:
        traceback.print_exc()
        status = _INTERRUPTED
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if status == _INTERRUPTED:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(status)


def _settle(wanted: dict[str, Any], streams: Sequence[int]) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    limits = wanted["descriptors"] or resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(limits))
    os.umask(wanted["umask"])
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    time.tzset()
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    if "PYTHONUNBUFFERED" in os.environ:
        for written in (sys.stdout, sys.stderr):
            written.reconfigure(write_through=True)
    sys.argv = wanted["arguments"]
    asyncio.set_event_loop_policy(None)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1


if __name__ == "__main__":
    main()
