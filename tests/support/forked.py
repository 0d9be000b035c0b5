"""Runs Python in copies of the code without loading the libraries anew: loads them once, and forks for each run.

Reads one JSON object a line (`arguments`, `environment`, `folder`) and answers each with one (`code`, `out`, `err`).
Nothing of the relay is loaded before the fork, so that each run has its own copy's.
"""

import contextlib
import importlib
import json
import os
import runpy
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

_ROOT = Path(__file__).parents[2]
_OURS = {path.stem for path in _ROOT.iterdir() if path.suffix == ".py" or path.is_dir()} | {"__main__"}


def main() -> None:
    """Serve until standard input ends."""
    for name in _libraries():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError("What a thread holds would be held for ever in the runs.")
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)  # noqa: T201


def _libraries() -> list[str]:
    """Return what the relay loads besides itself to check its contract and to serve it."""
    with tempfile.TemporaryFile() as listed:
        process = os.fork()
        if process == 0:
            _list_libraries(listed)
        os.waitpid(process, 0)
        listed.seek(0)
        return listed.read().decode().split()


def _list_libraries(listed: IO[bytes]) -> NoReturn:
    try:
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            sys.path[0] = str(_ROOT)
            sys.argv = ["contract", "check"]
            for name in ("httpx", "manage", "openapi.serving.assembly", "handlers.calls"):
                importlib.import_module(name)
            with contextlib.suppress(SystemExit):
                runpy.run_module("commands.contract", run_name="__main__")
        names = [name for name in sys.modules if name.partition(".")[0] not in _OURS]
        listed.write("\n".join(names).encode())
        listed.flush()
    finally:
        os._exit(0)


def _run(wanted: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = os.fork()
        if process == 0:
            _become(wanted, (out, err))
        _, status = os.waitpid(process, 0)
        for stream in (out, err):
            stream.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read().decode(),
            "err": err.read().decode(),
        }


def _become(wanted: dict[str, Any], streams: Sequence[IO[bytes]]) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.path[0] = wanted["folder"]
        _execute(wanted["arguments"])
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _execute(arguments: Sequence[str]) -> None:
    """Do what `python` does with the arguments `-c CODE …`, `-m MODULE …` or `FILE …`."""
    kind, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
