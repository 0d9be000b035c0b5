"""Runs pytest again and again without loading its libraries anew: load them once, fork for each run.

The first line names the modules to load, as a JSON list. Each further line is a run (`arguments`, `environment`,
`folder`, `output`); it is answered with a line for its process id and, once it is over, a line for its exit status.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    for name in json.loads(sys.stdin.readline()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        wanted = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(wanted)
        _say(process)
        _, status = os.waitpid(process, 0)
        _say(os.waitstatus_to_exitcode(status))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become(wanted: dict[str, Any]) -> None:
    status = 3
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(wanted["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
            os.dup2(stream, number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(wanted["folder"])
        os.environ.update(wanted["environment"])
        sys.dont_write_bytecode = bool(wanted["environment"].get("PYTHONDONTWRITEBYTECODE"))
        sys.path[0] = wanted["folder"]
        import pytest

        status = int(pytest.main(wanted["arguments"]))
    finally:
        sys.stdout.flush()
        # What pytest leaves behind at the end of its process, a database server for one, is taken down by these.
        import atexit

        atexit._run_exitfuncs()
        os._exit(status)


if __name__ == "__main__":
    main()
