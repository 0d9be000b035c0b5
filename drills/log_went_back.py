"""The database goes back while listeners follow, by socket and by HTTP: each ends with the database's own list.

A listener that is told of a gap reloads what it holds, as the document asks, and goes on. One that is not told, and
holds anything else than the database at the end, has lost events or shows some that never were.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from drills.load import Callers
from drills.outcome import Broken, Outcome, insist
from drills.stage import READY_SECONDS, Process, Stage, staged
from persistence import outbox
from tests.support.ports import free_port

_LISTENERS = 4
_POLL_SECONDS = 0.05
_BINARIES = Path("/usr/lib/postgresql/15/bin")  # Debian's

Event = tuple[int, str]


class Follower:
    """Holds what it was told of the log, by socket or by HTTP; `times_told` counts gaps for a replaced log."""

    def __init__(self, stage: Stage, reload: Callable[[], Awaitable[list[Event]]]) -> None:
        self.held: list[Event] = []
        self.times_told = 0
        self._position = 0
        self._epoch = ""
        self._reload = reload
        self._token = stage.demo.api_key.get_secret_value()

    async def by_socket(self, broadcaster: Process) -> None:
        """Follow for ever, and come back whenever the connection ends."""
        headers = {"Authorization": f"Bearer {self._token}"}
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                url = f"{broadcaster.url.replace('http', 'ws')}/v1?{self._query()}"
                async with connect(url, additional_headers=headers, proxy=None) as connection:
                    async for text in connection:
                        await self._take(json.loads(text))
            await asyncio.sleep(_POLL_SECONDS)

    async def by_http(self, api: Process) -> None:
        """Ask again and again, and wait for the answer up to a second."""
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False, timeout=READY_SECONDS) as http:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(f"/api/events?wait=1&{self._query()}")
                    if answer.status_code == httpx.codes.OK:
                        page = answer.json()
                        if page["gap"]:
                            await self._take({"type": "gap", "epoch": page["epoch"], **page["gap"]})
                        for frame in page["events"]:
                            await self._take(frame)
                        self._epoch = page["epoch"]
                await asyncio.sleep(_POLL_SECONDS)

    def _query(self) -> str:
        return f"since={self._position}" + (f"&epoch={self._epoch}" if self._epoch else "")

    async def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "hello" and not self._epoch:
            self._epoch = frame["epoch"]
        elif frame["type"] == "gap":
            self.times_told += frame["reason"] == "epoch"
            self._position, self._epoch = frame["oldest"] - 1, frame["epoch"]
            self.held = [event for event in await self._reload() if event[0] <= self._position]
        elif frame["type"] == "event" and frame["seq"] > self._position:
            self._position = frame["seq"]
            self.held.append((frame["seq"], frame["at"]))


async def restored_in_place(engine: str, repetitions: int) -> Outcome:
    """A backup is restored into the database that everybody has open."""
    return await _drill("a backup restored in place", engine, repetitions, _in_place)


async def restored_while_stopped(engine: str, repetitions: int) -> Outcome:
    """Everything is stopped, the backup restored, and everything started again."""
    return await _drill("a backup restored while all was stopped", engine, repetitions, _while_stopped)


async def standby_promoted(engine: str, repetitions: int) -> Outcome:
    """A standby that lagged behind takes over at the address of its primary."""
    worst, told = 0.0, 0
    for _ in range(repetitions):
        with Cluster() as cluster:
            async with staged(engine, database_url=cluster.url) as stage:
                took, count = await _round(stage, cluster.let_lag, cluster.promote)
                worst, told = max(worst, took), told + count
    return _outcome("a lagging standby promoted", engine, repetitions, worst, told)


Step = Callable[[], Awaitable[None]]


async def _drill(
    fault: str, engine: str, repetitions: int, restore: Callable[[Stage, list[Process], Path], Step]
) -> Outcome:
    worst, told = 0.0, 0
    for _ in range(repetitions):
        async with _installation(engine) as stage:
            backup = stage.folder / "backup"

            async def take(stage: Stage = stage, backup: Path = backup) -> None:
                await asyncio.to_thread(_take_backup, stage, backup)

            took, count = await _round(stage, take, restore(stage, stage.processes, backup))
            worst, told = max(worst, took), told + count
    return _outcome(fault, engine, repetitions, worst, told)


@contextlib.asynccontextmanager
async def _installation(engine: str) -> AsyncIterator[Stage]:
    """Make an installation; PostgreSQL is one whose version the programs for backups fit."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(Cluster()).url if engine == "postgresql" else None
        async with staged(engine, database_url=url) as stage:
            yield stage


def _outcome(fault: str, engine: str, repetitions: int, worst: float, told: int) -> Outcome:
    listeners = 2 * _LISTENERS * repetitions
    remark = (
        f"{told} of {listeners} listeners, by socket and by HTTP, were told; all ended with the database's own list"
    )
    return Outcome(fault, engine, repetitions, 0, 0, 0, 0, worst, remark)


async def _round(stage: Stage, back_up: Step, go_back: Step) -> tuple[float, int]:
    """Have everybody follow, go back, go on past where it was; return how long it took and how many were told."""
    api, broadcaster = await stage.api(), await stage.broadcaster()

    async def reload() -> list[Event]:
        async with stage.relay() as relay:
            found = await relay.database.read(lambda: outbox.after(stage.organization_id, 0, 100_000))
        return [(event.sequence, event.at) for event in found]

    followers = [Follower(stage, reload) for _ in range(2 * _LISTENERS)]
    tasks = [asyncio.create_task(each.by_socket(broadcaster)) for each in followers[:_LISTENERS]]
    tasks += [asyncio.create_task(each.by_http(api)) for each in followers[_LISTENERS:]]
    names = itertools.count(1)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
            callers = Callers(stage, [api])
            await _push(callers, http, names, 5)
            await _all_hold(followers, reload)
            await back_up()
            await _push(callers, http, names, 5)
            await _all_hold(followers, reload)
            began = time.monotonic()
            await go_back()
            # More than was lost: a position from before is below the head again.
            await _push(callers, http, names, 8)
            await _all_hold(followers, reload)
            took = time.monotonic() - began
            insist(all(each.times_told for each in followers), "a listener was not told that the log was replaced")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return took, sum(each.times_told > 0 for each in followers)


async def _push(callers: Callers, http: httpx.AsyncClient, names: Iterator[int], count: int) -> None:
    for _ in range(count):
        await callers.push(http, f"call-{next(names)}")


async def _all_hold(followers: list[Follower], reload: Callable[[], Awaitable[list[Event]]]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    there = await reload()
    while any(each.held != there for each in followers):
        wrong = [len(each.held) for each in followers if each.held != there]
        insist(time.monotonic() < deadline, f"{len(wrong)} listeners hold {wrong}, the database {len(there)}")
        await asyncio.sleep(_POLL_SECONDS)
        there = await reload()


# Backups.


def _take_backup(stage: Stage, backup: Path) -> None:
    if stage.engine == "sqlite":
        _copy(_file(stage), backup)
    else:
        _run("pg_dump", "--format=custom", f"--file={backup}", stage.settings.resolved_database_url)


def _restore_into(stage: Stage, backup: Path) -> None:
    if stage.engine == "sqlite":
        _copy(backup, _file(stage))
    else:
        url = stage.settings.resolved_database_url
        _run("pg_restore", "--clean", "--if-exists", "--exit-on-error", f"--dbname={url}", str(backup))


def _in_place(stage: Stage, _: list[Process], backup: Path) -> Step:
    async def step() -> None:
        await asyncio.to_thread(_restore_into, stage, backup)

    return step


def _while_stopped(stage: Stage, processes: list[Process], backup: Path) -> Step:
    async def step() -> None:
        for process in processes:
            await process.kill()
        if stage.engine == "sqlite":
            file = _file(stage)
            shutil.copyfile(backup, file)  # over the file: it stays the same to its file system
            for end in ("-wal", "-shm"):
                file.with_name(file.name + end).unlink(missing_ok=True)
        else:
            await asyncio.to_thread(_restore_into, stage, backup)
        for process in processes:
            await process.start()

    return step


def _file(stage: Stage) -> Path:
    return Path(stage.settings.resolved_database_url.removeprefix("sqlite:///"))


def _copy(source: Path, target: Path) -> None:
    """Copy by SQLite's own backup, which readers and writers may go on beside."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


# A primary and its standby.


class Cluster:
    """PostgreSQL with a streaming standby, in folders of their own."""

    def __init__(self) -> None:
        # The server does not run as root, and must be able to read the way to its folder.
        self._folder = Path("/tmp") / f"relay-cluster-{os.getpid()}-{free_port()}"  # noqa: S108
        self._primary, self._standby = self._folder / "primary", self._folder / "standby"
        self._port, self._standby_port = free_port(), free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> "Cluster":
        """Start the primary, and a standby that follows it."""
        self._folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        _run("initdb", "--auth=trust", "--username=postgres", "--no-sync", f"--pgdata={self._primary}")
        self._start(self._primary, self._port)
        source = f"--dbname=host=127.0.0.1 port={self._port} user=postgres"
        _run("pg_basebackup", f"--pgdata={self._standby}", "--write-recovery-conf", "--checkpoint=fast", source)
        self._start(self._standby, self._standby_port)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both, and remove them."""
        for folder in (self._primary, self._standby):
            with contextlib.suppress(Broken):
                _run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={folder}")
        shutil.rmtree(self._folder, ignore_errors=True)

    async def let_lag(self) -> None:
        """Wait until the standby has everything, and have it receive nothing from here on."""
        await asyncio.to_thread(self._let_lag)

    async def promote(self) -> None:
        """Lose the primary, and put the standby in its place."""
        await asyncio.to_thread(self._promote)

    def _let_lag(self) -> None:
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
        deadline = time.monotonic() + READY_SECONDS
        while self._ask(self._port, behind) != "1":
            insist(time.monotonic() < deadline, "the standby does not catch up")
            time.sleep(_POLL_SECONDS)
        self._ask(self._standby_port, "ALTER SYSTEM SET primary_conninfo = ''")
        self._ask(self._standby_port, "SELECT pg_reload_conf()")
        while self._ask(self._port, "SELECT count(*) FROM pg_stat_replication") != "0":
            insist(time.monotonic() < deadline, "the standby goes on receiving")
            time.sleep(_POLL_SECONDS)

    def _promote(self) -> None:
        _run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self._primary}")
        _run("pg_ctl", "promote", "--wait", f"--pgdata={self._standby}")
        _run("pg_ctl", "stop", "--mode=fast", f"--pgdata={self._standby}")
        self._start(self._standby, self._port)

    def _start(self, folder: Path, port: int) -> None:
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c hot_standby=on"
        log = self._folder / f"{folder.name}.log"
        _run("pg_ctl", "start", "--wait", f"--pgdata={folder}", f"--log={log}", f"--options={options}")

    def _ask(self, port: int, sql: str) -> str:
        return _run("psql", "--tuples-only", "--no-align", f"--dbname={self._url(port)}", f"--command={sql}").strip()

    def _url(self, port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _run(program: str, *arguments: str) -> str:
    command = [str(_BINARIES / program), *arguments]
    if os.geteuid() == 0 and program in ("initdb", "pg_ctl", "pg_basebackup"):
        command = ["runuser", "-u", "postgres", "--", *command]  # the server refuses to run as root
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
    insist(done.returncode == 0, f"{program}: {done.stdout} {done.stderr}")
    return done.stdout
