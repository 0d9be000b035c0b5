"""Pages of the relay's own addresses and of listed origins may use it from a browser, and no others."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from config import Settings
from tests.support.api import Api, running_api
from tests.support.processes import accepts, environment, run, running

LISTED = "https://desk.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {f"http://{host}:{port}" for host in ("localhost", "127.0.0.1", "[::1]") for port in (2212, 2213)}),
        ({"public_url": "https://Relay.example:443/base"}, {"https://relay.example"}),
        ({"realtime_public_url": "wss://events.example/v1"}, {"https://events.example"}),
        ({"api_host": "192.0.2.7", "api_port": 80}, {"http://192.0.2.7", "http://localhost"}),
        ({"realtime_allowed_origins": f"{LISTED}/, *"}, {LISTED, "*"}),
    ],
)
def test_allowed_origins_are_the_relays_own_and_those_listed(given: dict[str, Any], expected: set[str]) -> None:
    """As browsers write them, so that no spelling of a setting matters."""
    assert expected <= settings(**given).allowed_origins


async def asked_from(api: Api, origin: str) -> tuple[httpx.Response, httpx.Response]:
    """Return the answers to a preflight and to a request of a page."""
    path, headers = "/api/auth/verify-token", {"Origin": origin}
    preflight = await api.http.options(path, headers=headers | PREFLIGHT)
    token = {"Authorization": f"Bearer {api.superadmin_token}"}
    return preflight, await api.http.get(path, headers=headers | token)


async def test_pages_of_allowed_origins_may_use_the_api_and_others_may_not(tmp_path: Path) -> None:
    """Browsers keep an answer without the header from the page, and never send what a preflight does not allow."""
    async with running_api(tmp_path, realtime_allowed_origins=LISTED) as api:
        for origin in (LISTED, "https://relay.example", "http://localhost:2212", "http://127.0.0.1:2212"):
            preflight, answer = await asked_from(api, origin)
            assert [one.headers.get("access-control-allow-origin") for one in (preflight, answer)] == [origin] * 2
            assert (preflight.status_code, answer.status_code) == (204, 200)
            assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
            assert "access-control-allow-credentials" not in preflight.headers
        for origin in ("https://evil.example", "http://desk.example", "null"):
            for one in await asked_from(api, origin):
                assert not [name for name in one.headers if name.startswith("access-control-")]
                assert one.headers["vary"] == "Origin"


async def test_errors_can_be_read_by_pages_of_allowed_origins_too(tmp_path: Path) -> None:
    """Otherwise a wrong password would look like a broken network."""
    async with running_api(tmp_path, realtime_allowed_origins=LISTED) as api:
        wrong = await api.http.post(
            "/api/auth/login", json={"email": "a@example.com", "password": "wrong"}, headers={"Origin": LISTED}
        )

    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (401, LISTED)


@pytest.mark.parametrize(
    ("origin", "code"),
    [("http://localhost:{API_PORT}", 4408), ("https://relay.example", 4408), ("https://evil.example", 4403)],
)
async def test_pages_of_the_api_may_open_the_socket_by_default(tmp_path: Path, origin: str, code: int) -> None:
    """At whichever of its addresses; a refusal names the origin in the log."""
    env = environment(tmp_path, public_url="https://relay.example", realtime_auth_seconds=0.2)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    with running("broadcast", env=env, folder=tmp_path) as broadcaster:
        broadcaster.until(lambda: accepts(env["REALTIME_PORT"]))
        url = f"ws://127.0.0.1:{env['REALTIME_PORT']}/v1"
        async with connect(url, origin=origin.format(**env), proxy=None) as connection:  # type: ignore[arg-type]
            await connection.wait_closed()
        broadcaster.until(lambda: code == 4408 or "evil.example" in broadcaster.errors + broadcaster.output)

    assert connection.close_code == code
