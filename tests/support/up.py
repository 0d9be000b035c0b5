"""The relay as a person runs it: `manage.py up` in processes of its own, on free ports and a folder of its own."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.processes import Child, end, run, start
from tests.support.waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).parents[2]


@dataclass
class Processes:
    """A running `up`: its credentials, its process, and where its log goes."""

    demo: dict[str, str]
    process: Child
    data_dir: Path
    log: Path

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a relay that lives in `data_dir`, free of the surroundings' own settings."""
    api_port, realtime_port = free_port(), free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    ours = {"DATA_DIR": str(data_dir), "API_PORT": str(api_port), "REALTIME_PORT": str(realtime_port)}
    return kept | ours | {name.upper(): value for name, value in settings.items()}


async def manage(env: dict[str, str], *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run `manage.py` with the arguments; return its exit status and what it printed."""
    done = await asyncio.to_thread(run, *arguments, env=env, folder=ROOT, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


@contextlib.asynccontextmanager
async def running_up(env: dict[str, str]) -> AsyncIterator[Processes]:
    """Run `manage.py up` until the end of the block; entered once both servers answer."""
    data_dir = Path(env["DATA_DIR"])
    log = data_dir.with_suffix(".log")
    with log.open("ab") as output:
        process = start("up", env=env, folder=ROOT, stdout=output.fileno(), stderr=output.fileno())
    try:
        await _until_ready(process, env, log)
        running = Processes(json.loads((data_dir / "demo.json").read_text()), process, data_dir, log)
        yield running
        await running.stop()
    finally:
        end(process)


async def _until_ready(process: Child, env: dict[str, str], log: Path) -> None:
    pages = [f"http://127.0.0.1:{env['API_PORT']}/readyz", f"http://127.0.0.1:{env['REALTIME_PORT']}/healthz"]
    async with httpx.AsyncClient(trust_env=False) as http:
        for page in pages:
            await until(partial(_answers, http, page, process, log), f"{page} answers")


async def _answers(http: httpx.AsyncClient, page: str, process: Child, log: Path) -> bool:
    assert process.poll() is None, _text(log)
    try:
        return (await http.get(page)).is_success
    except httpx.TransportError:
        return False


def _text(path: Path) -> str:
    return path.read_text()
