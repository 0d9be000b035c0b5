"""`make run-postgres`: the demo on a PostgreSQL of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.processes import MANAGE, Running, environment
from tests.support.waiting import PATIENCE_SECONDS


@contextlib.contextmanager
def running_on_postgres(folder: Path, env: dict[str, str]) -> Iterator[Running]:
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as said, errors.open("wb") as complained:
        process = subprocess.Popen(
            [sys.executable, "-m", "commands.local_postgres"],
            cwd=folder,
            env=env | {"PYTHONPATH": str(MANAGE.parent)},
            stdout=said,
            stderr=complained,
        )
    running = Running(process, output, errors)
    try:
        running.until(lambda: "The same for scripts" in running.output)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def test_the_demo_runs_on_postgresql_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """What is printed works, a signal ends it without a complaint, and the next start finds the same credentials."""
    env = environment(tmp_path)
    env.pop("DATA_DIR")
    secrets, listeners = [], []
    for _ in range(2):
        with running_on_postgres(tmp_path, env) as running:
            (secret,) = re.findall(r"Tool secret  ([0-9a-f]{64})", running.output)
            answer = httpx.post(
                f"http://127.0.0.1:{env['API_PORT']}/api/webhook/elevenlabs/tools/transfer",
                json={},
                headers={"Authorization": f"Bearer {secret}"},
                trust_env=False,
            )
            assert answer.status_code == 200
            secrets.append(secret)
            listeners += re.findall(r"DATA_DIR=(\S+) \S+ manage\.py listen", running.output)
        assert running.process.returncode == 0
        assert "Warning" not in running.errors

    assert secrets[0] == secrets[1]
    assert listeners == [os.path.join("var", "postgres")] * 2  # noqa: PTH118 - as it is printed
    assert not (tmp_path / "var" / "postgres" / "data" / "postmaster.pid").exists()
    assert (tmp_path / "var" / "postgres" / "environment.json").stat().st_mode & 0o077 == 0
