"""Fixtures for the tests of outgoing HTTP."""

import ssl
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """Loading the authorities takes longer than most tests, so it is done once."""
    return ssl.create_default_context()


@pytest.fixture
async def http(tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=tls) as client:
        yield client


@pytest.fixture
def move_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the monotonic clock forward, the event loop's included: a long time limit then ends when a test says so."""
    clock, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(ahead))
    return ahead.append
