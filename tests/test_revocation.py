"""A connection does not outlive its token: real processes, real sockets, both engines."""

import json
from collections import Counter
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support import published_events
from tests.support.randomness import encryption_key
from tests.support.up import environment, manage, running_up
from tests.support.waiting import PATIENCE_SECONDS, patience

pytestmark = pytest.mark.any_engine


async def listener(demo: dict[str, str], token: str) -> ClientConnection:
    """Connect with the token and take the hello."""
    connection = await connect(demo["realtimeUrl"], additional_headers={"Authorization": f"Bearer {token}"})
    assert published_events.check(await connection.recv())["type"] == "hello"
    return connection


async def ask(http: httpx.AsyncClient, method: str, path: str, token: str = "", body: Any = None) -> dict[str, Any]:
    answer = await http.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"} if token else {})
    assert answer.is_success, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


async def close_code(connection: ClientConnection) -> int | None:
    async with patience():
        await connection.wait_closed()
    return connection.close_code


async def test_revoked_tokens_stop_listening(empty_database_url: str, tmp_path: Path) -> None:
    """Signing out everywhere, a new password and a new API key each end their own listeners, within seconds."""
    secrets = {"jwt_secret": token_hex(32), "encryption_keys": encryption_key()}
    env = environment(tmp_path / "var", database_url=empty_database_url, **secrets)
    async with (
        running_up(env) as running,
        httpx.AsyncClient(base_url=running.demo["apiUrl"], trust_env=False, timeout=PATIENCE_SECONDS) as http,
    ):
        demo = running.demo
        login = {"email": demo["superadminEmail"], "password": demo["superadminPassword"]}

        session = (await ask(http, "POST", "/api/auth/login", body=login))["token"]
        by_session, by_key = await listener(demo, session), await listener(demo, demo["apiKey"])
        await ask(http, "POST", "/api/auth/sign-out", session)
        assert await close_code(by_session) == 4497

        session = (await ask(http, "POST", "/api/auth/login", body=login))["token"]
        by_session = await listener(demo, session)
        await ask(http, "POST", "/api/user/api-key/regenerate", session)
        assert await close_code(by_key) == 4497

        await manage(env, "user", "password", demo["superadminEmail"], stdin="another password\nanother password\n")
        assert await close_code(by_session) == 4497


@pytest.mark.each_engine
async def test_a_disabled_user_and_a_revoked_key_stop_listening(empty_database_url: str, tmp_path: Path) -> None:
    """Token, key and sockets end within seconds; an ingest key never listens; who listened is in the audit log."""
    secrets = {"jwt_secret": token_hex(32), "encryption_keys": encryption_key()}
    env = environment(tmp_path / "var", database_url=empty_database_url, audit_reads="on", **secrets)
    async with running_up(env) as running, httpx.AsyncClient(base_url=running.demo["apiUrl"], trust_env=False) as http:
        demo, email = running.demo, running.demo["superadminEmail"]
        login = {"email": email, "password": demo["superadminPassword"]}
        session = (await ask(http, "POST", "/api/auth/login", body=login))["token"]
        keys = {
            kind: (await manage(env, "key", "api", email, "--name", kind, "--kind", kind))[1].strip()
            for kind in ("listen", "ingest")
        }
        by_key = await listener(demo, keys["listen"])
        with pytest.raises(InvalidStatus) as refused:
            await listener(demo, keys["ingest"])
        async with connect(demo["realtimeUrl"]) as late:
            await late.send(json.dumps({"type": "auth", "token": keys["ingest"]}))
            assert await close_code(late) == 4401
        assert (await manage(env, "key", "revoke", email, "--name", "listen"))[0] == 0
        assert await close_code(by_key) == 4497

        by_session, by_first_key = await listener(demo, session), await listener(demo, demo["apiKey"])
        assert (await manage(env, "user", "disable", email))[0] == 1
        assert (await manage(env, "user", "disable", email, "--force"))[0] == 0
        assert await close_code(by_session) == await close_code(by_first_key) == 4497
        token = {"Authorization": f"Bearer {session}"}
        assert (await http.get("/api/auth/verify-token", headers=token)).status_code == 401
        assert (await http.post("/api/auth/login", json=login)).status_code == 401
    _, printed, _ = await manage(env, "audit", "--json", "--limit", "1000", "--oldest-first")
    lines = [json.loads(line) for line in printed.splitlines()]
    sockets = Counter(line["action"] for line in lines if line["action"].startswith("socket."))

    assert refused.value.response.status_code == 401
    assert sockets == {"socket.opened": 3, "socket.closed": 3}
    assert (await manage(env, "audit", "verify"))[0] == 0
