"""The fake vendors themselves: tests that lean on them may trust them."""

import asyncio

import httpx
import pytest

from tests.support.faulty_http import FakeVendor, Fault, Received, Reply, in_thread


class Echo(FakeVendor):
    """Answers with what it was sent, and breaks when told to."""

    def answer(self, request: Received) -> Reply:
        if request.body == b"break":
            raise ValueError("broken fake")
        return Reply(200, body=request.body)


def test_a_fake_runs_in_a_thread_of_its_own() -> None:
    """Other processes and plain tests can use it, and it is gone afterwards."""
    with in_thread(Echo()) as echo:
        answers = [httpx.post(echo.url, content=word, trust_env=False).content for word in (b"one", b"two")]
        echo.behave(Reply(503), on="/elsewhere")
        statuses = [
            httpx.post(echo.url + path, trust_env=False).status_code for path in ("/", "/elsewhere", "/elsewhere")
        ]

    assert answers == [b"one", b"two"]
    assert statuses == [200, 503, 200]
    assert [request.path for request in echo.requests] == ["/", "/", "/", "/elsewhere", "/elsewhere"]
    with pytest.raises(httpx.ConnectError):
        httpx.post(echo.url, trust_env=False)


async def test_what_hangs_goes_on_when_released() -> None:
    """A slow vendor is one that hangs and is released."""
    async with Echo() as echo, httpx.AsyncClient(trust_env=False) as client:
        echo.behave(Fault.HANG_AFTER_READING)
        asking = asyncio.create_task(client.post(echo.url, content=b"late"))
        await echo.until_received(1)
        assert not asking.done()
        echo.release()

        assert (await asking).content == b"late"


async def test_waiting_for_what_never_comes_fails() -> None:
    """A test that waits in vain is told so."""
    async with Echo() as echo:
        with pytest.raises(AssertionError, match="0 of 1 requests"):
            await echo.until_received(1, seconds=0.01)


async def test_a_standing_behaviour_lasts_until_it_is_lifted() -> None:
    """`always` holds, and `behave()` alone ends it."""
    async with Echo() as echo, httpx.AsyncClient(trust_env=False) as client:
        echo.behave(Reply(500), always=True)
        statuses = [(await client.post(echo.url)).status_code for _ in range(2)]
        echo.behave()
        statuses.append((await client.post(echo.url)).status_code)

    assert statuses == [500, 500, 200]


async def test_a_broken_fake_breaks_its_test() -> None:
    """A mistake in a fake is not mistaken for a vendor's fault."""
    echo = await Echo().__aenter__()
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(echo.url, content=b"break")

    with pytest.raises(ValueError, match="broken fake"):
        await echo.__aexit__(None, None, None)
