import pytest

from tests.clients.drivers import KINDS, Start, starter
from tests.realtime.conftest import engine, world
from tests.support import chromium

__all__ = ["engine", "world"]

# Browser tests are collected where there is a browser; `make browser` sees to it that there is one.
collect_ignore = [] if chromium.EXECUTABLE else ["test_browser.py"]


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest) -> Start:
    """Start a client: each test runs with each of them."""
    return starter(request.param)
