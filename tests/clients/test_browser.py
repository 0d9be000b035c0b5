"""What only browsers tell a client: the page is in front, the network went and came, the machine slept."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.scripted import Said, Scripted, Way, event, hello, scripted
from tests.realtime.conftest import Station, World, make_event
from tests.support.chromium import Tab, browser

PATIENT = hello(base=3600, longest=3600)  # a pause nobody waits for


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def station(world: World) -> AsyncIterator[Station]:
    """A broadcaster that serves the client to pages, and follows pages of any origin."""
    async with world.broadcaster(allowed_origins=["*"]) as made:
        yield made


async def follow(tab: Tab, station: Station, url: str, **options: Any) -> None:
    """Follow in a page; `got` are the sequences, `told` the states with their reasons."""
    await tab.open(f"http://127.0.0.1:{station.port}/healthz")
    await tab.run(
        "import('/client.js').then(({follow}) => { window.got = []; window.told = []; window.following = follow({"
        f"...{json.dumps({'url': url, 'token': 'ours', 'since': 0} | options)},"
        "onEvent: (event) => got.push(event.seq),"
        "onState: (name, detail) => told.push([name, detail.reason ?? '']) }) })"
    )


async def until_told(tab: Tab, name: str, reason: str = "", times: int = 1) -> None:
    await tab.until(f"told.filter(([n, r]) => n === {name!r} && r.startsWith({reason!r})).length >= {times}")


async def test_a_line_that_is_dead_is_noticed_while_the_page_is_in_front(
    world: World, station: Station, tab: Tab
) -> None:
    """After seconds, though the server's heartbeat is a minute and more; and nothing is missed."""
    async with station.behind_a_line() as line:
        await follow(tab, station, line.url)
        await until_told(tab, "live")
        line.cut()
        await until_told(tab, "waiting", "no answer")
        await world.commit(make_event())
        line.mend()
        await tab.until("got.length === 1")

        assert await tab.run("got") == [1]


async def test_a_network_that_went_ends_the_connection_and_one_that_comes_brings_it_back(
    station: Station, tab: Tab
) -> None:
    """At once, however long the pause would be."""
    scripts: list[list[Said]] = [[PATIENT], [hello(), event(1)]]
    async with scripted(*scripts) as playing:
        await follow(tab, station, playing.url)
        await until_told(tab, "live")
        await tab.run("Math.random = () => 1")
        await tab.run("window.dispatchEvent(new Event('offline'))")
        await until_told(tab, "waiting", "offline")
        await tab.run("window.dispatchEvent(new Event('online'))")
        await tab.until("got.length === 1")


@pytest.mark.parametrize("wakes", ["document.dispatchEvent(new Event('visibilitychange'))",
                                   "window.dispatchEvent(new Event('pageshow'))"])  # fmt: skip
async def test_a_page_that_comes_to_the_front_does_not_wait_on(station: Station, tab: Tab, wakes: str) -> None:
    """Whoever comes back to it sees what happens now."""
    async with scripted([PATIENT], [hello(), event(1)]) as playing:
        await follow(tab, station, playing.url)
        await until_told(tab, "live")
        await tab.run("Math.random = () => 1")
        playing.break_off()
        await until_told(tab, "waiting")
        await tab.run(wakes)
        await tab.until("got.length === 1")


async def test_a_line_is_given_up_at_once_when_the_machine_wakes(station: Station, tab: Tab) -> None:
    """It was not looked at for an hour, so it is not asked first."""
    async with scripted([Way.MUTE, hello()], [hello(), event(1)]) as playing:
        await follow(tab, station, playing.url, pongSeconds=3600)
        await until_told(tab, "live")
        await tab.run("{ const { now } = Date; Date.now = () => now() + 3600_000; }")
        await tab.run("document.dispatchEvent(new Event('visibilitychange'))")
        await until_told(tab, "waiting", "the machine was asleep")
        await tab.until("got.length === 1")


async def test_a_follow_that_was_stopped_hears_nothing_of_its_surroundings(station: Station, tab: Tab) -> None:
    """It does not come back, and leaves no listener behind."""
    async with scripted([hello()]) as playing:
        await follow(tab, station, playing.url)
        await until_told(tab, "live")
        await tab.run("following.stop()")
        await until_told(tab, "stopped")
        await tab.run("for (const name of ['offline', 'online', 'pageshow']) window.dispatchEvent(new Event(name))")
        await _is_quiet(tab, playing)


async def _is_quiet(tab: Tab, playing: Scripted) -> None:
    """A second follow connects after whatever the first would have done."""
    await tab.run(
        f"import('/client.js').then(({{follow}}) => follow({{ url: '{playing.url}', token: 'x', onEvent() {{}} }}))"
    )
    await playing.until_connected(2)
    assert [name for name, _ in await tab.run("told")] == ["connecting", "live", "stopped"]
    assert [asked["token"] for asked in playing.asked] == ["ours", "x"]
