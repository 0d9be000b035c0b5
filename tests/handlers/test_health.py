"""What load balancers and Prometheus are told."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app import create_app
from domain.errors import Overloaded
from tests.support.api import Api
from tests.support.waiting import patience

# What is asked for here has nothing to do with the engine.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"])


class Door:
    """A database of which something is changed."""

    def __init__(self, database: Any, **changes: Any) -> None:
        self._database = database
        vars(self).update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


@contextlib.asynccontextmanager
async def with_database(api: Api, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the relay with a database of which something is changed."""
    relay = dataclasses.replace(api.relay, database=Door(api.relay.database, **changes))
    transport = httpx.ASGITransport(create_app(relay))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http, patience():
        yield http


async def refuse(*_: Any, **__: Any) -> None:
    raise Overloaded("database or disk is full")


async def never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


async def test_a_server_that_can_serve_is_ready(api: Api) -> None:
    """Its database and its recordings were tried."""
    answer = await api.http.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "recordings": "ok", "secrets": "ok"}}


async def test_a_database_that_cannot_be_written_is_not_ready(api: Api) -> None:
    """Reading is not enough: a full disk serves nobody. The process lives all the same."""
    async with with_database(api, write=refuse) as http:
        ready, alive = await http.get("/readyz"), await http.get("/healthz")

    assert (ready.status_code, alive.status_code) == (503, 200)
    assert ready.json() == {
        "status": "unavailable",
        "checks": {"database": "the database cannot be written", "recordings": "ok", "secrets": "ok"},
    }


async def test_a_database_that_hangs_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The balancer hears it before it gives up itself."""
    monkeypatch.setattr("actions.check_readiness._PATIENCE_SECONDS", 0.05)
    async with with_database(api, write=never) as http:
        assert (await http.get("/readyz")).status_code == 503


async def test_a_database_of_an_earlier_version_is_not_ready(api: Api) -> None:
    """A new version takes no traffic before its migrations."""
    async with with_database(api, pending_migrations=lambda: ["0002_more"]) as http:
        answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "migrations are pending: run manage.py migrate"


async def test_a_store_that_cannot_be_used_is_not_ready(api: Api) -> None:
    """A call with a recording could not be kept."""
    folder = api.data_dir / "recordings"
    with contextlib.suppress(FileNotFoundError):
        folder.rename(api.data_dir / "elsewhere")
    folder.write_text("a file where the folder should be")
    answer = await api.http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "ok",
        "recordings": "the recording store cannot be used",
        "secrets": "ok",
    }


async def test_a_scanner_makes_one_metric_however_many_paths_it_tries(api: Api) -> None:
    """What is no operation counts together."""
    for path in ("/wp-login.php", "/.env", "/api/nowhere"):
        assert (await api.http.get(path)).status_code == 404
    figures = (await api.http.get("/metrics")).text

    assert 'relay_requests_total{operation="none",status="404"} 3.0' in figures
    assert not any(word in figures for word in ("wp-login", ".env", "nowhere"))


async def test_probes_do_not_fill_the_log(api: Api) -> None:
    """They come every second and say nothing; what people do is told."""
    with capture_logs() as logs:
        for path in ("/healthz", "/readyz", "/metrics", "/api/nowhere"):
            await api.http.get(path)
    told = [(log["path"], log["log_level"]) for log in logs if log["event"] == "request"]

    assert told == [("/healthz", "debug"), ("/readyz", "debug"), ("/metrics", "debug"), ("/api/nowhere", "info")]
