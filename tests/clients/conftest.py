import pytest

from tests.clients.drivers import KINDS, Start, starter
from tests.realtime.conftest import engine, world

__all__ = ["engine", "world"]


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest) -> Start:
    """Start a client: each test runs with each of them."""
    return starter(request.param)
