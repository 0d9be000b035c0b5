"""Runs commands of `manage.py` as processes of their own without loading everything anew: load once, fork for each.

Reads one JSON object a line (`arguments`, `environment`, `folder`, `stdin`, `timeout`) and answers each with one
(`status`, `output`, `errors`).
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import commands.serving  # noqa: F401 - what takes time to load, loaded once
import manage


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        answer = _run(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(wanted: dict[str, Any]) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(wanted["stdin"].encode())
        streams[0].seek(0)
        process = os.fork()
        if process == 0:
            _become(wanted, streams)
        _, status = os.waitpid(process, 0)
        for stream in streams:
            stream.seek(0)
        output, errors = (stream.read().decode() for stream in streams[1:])
        return {"status": os.waitstatus_to_exitcode(status), "output": output, "errors": errors}


def _become(wanted: dict[str, Any], streams: Sequence[IO[bytes]]) -> None:
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.alarm(wanted["timeout"])
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.argv = ["manage.py", *wanted["arguments"]]
        manage.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
