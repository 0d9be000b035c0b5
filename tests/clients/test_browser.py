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
RARE = 3600.0  # seconds between the heartbeats of a server that nobody waits for

# From here on timers of a second and more, and the date, go by a clock that only `pass_seconds` moves.
CLOCK = """{
  const { setTimeout, clearTimeout } = window, timers = new Map();
  let passed = 0, last = 0;
  const began = Date.now();
  Date.now = () => began + passed;
  window.setTimeout = (call, delay = 0, ...rest) => {
    if (delay < 1000) return setTimeout(call, delay, ...rest);
    timers.set(--last, { call: () => call(...rest), due: passed + delay });
    return last;
  };
  window.clearTimeout = (id) => { timers.delete(id); clearTimeout(id); };
  window.passSeconds = async (seconds) => {
    for (const end = passed + seconds * 1000; passed < end;) {
      passed += 250;
      for (const [id, { call, due }] of timers) if (due <= passed && timers.delete(id)) call();
      const { port1, port2 } = new MessageChannel(); // as soon as anything else, also behind another tab
      await new Promise((done) => { port1.onmessage = done; port2.postMessage(0); });
    }
  };
}"""


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
    await begin(tab, url, **options)


async def begin(tab: Tab, url: str, **options: Any) -> None:
    """Follow in the page that is open."""
    await tab.run(
        "import('/client.js').then(({follow}) => { window.got = []; window.told = []; window.following = follow({"
        f"...{json.dumps({'url': url, 'token': 'ours', 'since': 0} | options)},"
        "onEvent: (event) => got.push(event.seq),"
        "onState: (name, detail) => told.push([name, detail.reason ?? '']) }) })"
    )


async def by_a_clock(tab: Tab, station: Station) -> None:
    """Open a page whose clock stands still unless the test moves it."""
    await tab.open(f"http://127.0.0.1:{station.port}/healthz")
    await tab.run(CLOCK)


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


async def test_a_dead_line_is_noticed_within_ten_seconds_of_the_pages_clock(station: Station, tab: Tab) -> None:
    """With the page in front, and however seldom the server says something."""
    async with scripted([Way.MUTE, hello(heartbeat=RARE)], [hello(), event(1)]) as playing:
        await by_a_clock(tab, station)
        await begin(tab, playing.url)
        await until_told(tab, "live")
        await tab.run("passSeconds(9)")
        await playing.until_asked(1)
        await until_told(tab, "waiting", "no answer")
        await tab.until("got.length === 1")

        assert playing.heard == ["ping"]


async def test_a_hidden_page_asks_a_quiet_line_at_once_when_it_is_in_front_again(station: Station, tab: Tab) -> None:
    """Behind another tab it asks as seldom as the server's heartbeat; the answer keeps the line."""
    async with scripted([hello(heartbeat=RARE)]) as playing:
        await by_a_clock(tab, station)
        await begin(tab, playing.url)
        await until_told(tab, "live")
        async with tab.behind_another():
            await tab.run("passSeconds(2)")  # the look that was set while the page was in front
            await tab.run("passSeconds(40)")
            assert playing.heard == []
        await playing.until_asked(1)
        await tab.until("following.since === 7")  # the pong says so

        assert len(playing.asked) == 1


async def test_a_line_that_died_behind_another_tab_is_given_up_when_the_page_is_in_front(
    station: Station, tab: Tab
) -> None:
    """It is asked at once, and left when it does not answer."""
    async with scripted([Way.MUTE, hello(heartbeat=RARE)], [hello(), event(1)]) as playing:
        await by_a_clock(tab, station)
        await begin(tab, playing.url)
        await until_told(tab, "live")
        async with tab.behind_another():
            await tab.run("passSeconds(40)")
        await playing.until_asked(1)
        await tab.run("passSeconds(5)")
        await until_told(tab, "waiting", "no answer")
        await tab.until("got.length === 1")


async def test_a_page_behind_another_does_not_wait_on_once_it_is_in_front(station: Station, tab: Tab) -> None:
    """The connection broke while nobody looked, and the pause would be an hour."""
    async with scripted([PATIENT], [hello(), event(1)]) as playing:
        await follow(tab, station, playing.url)
        await until_told(tab, "live")
        await tab.run("Math.random = () => 1")
        async with tab.behind_another():
            playing.break_off()
            await until_told(tab, "waiting")
            assert await tab.run("got") == []
        await tab.until("got.length === 1")


async def test_a_network_that_is_taken_from_the_browser_and_given_back(station: Station, tab: Tab) -> None:
    """The browser's own events, not only those of a test."""
    async with scripted([PATIENT], [hello(), event(1)]) as playing:
        await follow(tab, station, playing.url)
        await until_told(tab, "live")
        await tab.run("Math.random = () => 1")
        await tab.set_network(is_there=False)
        await until_told(tab, "waiting", "offline")
        await tab.set_network(is_there=True)
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
