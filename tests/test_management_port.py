"""Health, readiness and metrics: on a port of their own if there is one, and cheap however often they are asked for."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx
import pytest

from actions import check_readiness
from app import create_apps
from persistence import readiness
from tests.support.api import running_api, serving
from tests.support.ports import free_port
from tests.support.processes import environment, run, running

PROBES = ("/healthz", "/readyz", "/metrics")


async def statuses(url: str, paths: tuple[str, ...] = PROBES) -> list[int]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        return [(await http.get(path)).status_code for path in paths]


async def test_probes_are_on_the_management_port_and_nowhere_else(tmp_path: Path) -> None:
    """Nothing else is there."""
    async with (
        running_api(tmp_path, management_port=free_port()) as api,
        serving(create_apps(api.relay).management) as management,
    ):
        public = await statuses(api.url)
        private = await statuses(management)
        elsewhere = await statuses(management, ("/", "/openapi.json", "/docs/", "/live", "/api/calls/history"))

    assert public == [404, 404, 404]
    assert private == [200, 200, 200]
    assert elsewhere == [404] * 5


async def test_probes_on_the_management_port_are_not_counted(tmp_path: Path) -> None:
    """Whoever watches is never told to come back."""
    async with (
        running_api(tmp_path, management_port=free_port(), requests_per_minute_per_address=1) as api,
        serving(create_apps(api.relay).management) as management,
    ):
        assert await statuses(management, PROBES * 3) == [200] * 9
        assert await statuses(api.url, ("/nowhere", "/nowhere")) == [404, 429]


async def test_both_processes_have_one_and_up_waits_for_it(tmp_path: Path) -> None:
    """The broadcaster's is the port above, on the loopback address."""
    port = free_pair()
    env = environment(tmp_path, management_port=port)
    with running("up", env=env, folder=tmp_path) as up:
        await asyncio.to_thread(up.until, lambda: "The same for scripts" in up.output)
        public = [await statuses(f"http://127.0.0.1:{env[name]}") for name in ("API_PORT", "REALTIME_PORT")]
        private = [await statuses(f"http://127.0.0.1:{each}") for each in (port, port + 1)]
        elsewhere = [await statuses(f"http://127.0.0.1:{each}", ("/live", "/v1")) for each in (port, port + 1)]
        stopped = await asyncio.to_thread(up.stop)

    assert public == [[404, 404, 404]] * 2
    assert private == [[200, 200, 200]] * 2
    assert elsewhere == [[404, 404]] * 2
    assert stopped == 0
    assert "Traceback" not in up.output


def free_pair() -> int:
    """Return a port that is free, and the one above it as well."""
    first = free_port()
    while (second := free_port()) != first + 1:
        first = second
    return first


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"management_port": 65_535}, ("REALTIME_MANAGEMENT_PORT",)),
        ({"management_port": "API"}, ("MANAGEMENT_PORT", "API_PORT")),
        ({"pages": "maybe"}, ("PAGES", "'on'")),
    ],
)
def test_ports_that_cannot_be_are_one_sentence(
    tmp_path: Path, settings: dict[str, object], words: tuple[str, ...]
) -> None:
    """It says which setting to change."""
    env = environment(tmp_path, **settings)
    env = {name: env["API_PORT"] if value == "API" else value for name, value in env.items()}
    done = run("org", "list", env=env, folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("tether-relay: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)


class Evaluations(Counter[str]):
    """Counts how often the database is written to find out whether it can be, and keeps the time."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def write_something(self) -> None:
        self["writes"] += 1
        self.written()

    written = staticmethod(readiness.write_something)


async def test_readiness_is_found_out_at_most_once_a_second_however_often_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests at the same time share one look, and later ones its result until the second is over."""
    seen = Evaluations()
    monkeypatch.setattr(readiness, "write_something", seen.write_something)
    async with running_api(tmp_path) as api:
        monkeypatch.setattr(check_readiness, "time", seen)
        together = await asyncio.gather(*(api.http.get("/readyz") for _ in range(30)))
        at_once = seen["writes"]
        seen.now += 0.9
        later = await api.http.get("/readyz")
        within_a_second = seen["writes"]
        seen.now += 0.2
        again = await api.http.get("/readyz")

    assert {answer.status_code for answer in (*together, later, again)} == {200}
    assert (at_once, within_a_second, seen["writes"]) == (1, 1, 2)
