"""A connection does not outlive its token: real processes, real sockets, both engines."""

import asyncio
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support import published_events
from tests.support.randomness import encryption_key
from tests.support.up import environment, manage, running_up

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
    async with asyncio.timeout(15):
        await connection.wait_closed()
    return connection.close_code


async def test_revoked_tokens_stop_listening(empty_database_url: str, tmp_path: Path) -> None:
    """Signing out everywhere, a new password and a new API key each end their own listeners, within seconds."""
    secrets = {"jwt_secret": token_hex(32), "encryption_keys": encryption_key()}
    env = environment(tmp_path / "var", database_url=empty_database_url, **secrets)
    async with running_up(env) as running, httpx.AsyncClient(base_url=running.demo["apiUrl"], trust_env=False) as http:
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
