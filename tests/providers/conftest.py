"""Fixtures for the tests of outgoing HTTP."""

import ssl
from collections.abc import AsyncIterator

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
