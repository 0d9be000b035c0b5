"""The listener and the live page in a real browser; collected where there is a Chromium."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.events import EventName
from tests.realtime.conftest import Station, World, make_event, unhurried
from tests.support import published_events
from tests.support.chromium import Tab, browser

QUICK = unhurried(jitter_seconds=0.2)
ENTER = 13


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures go: a folder of the test's own, unless SCREENSHOTS names one to keep them in."""
    return Path(os.environ.get("SCREENSHOTS", tmp_path))


def keep(path: Path, picture: bytes) -> None:
    path.write_bytes(picture)


async def follow(tab: Tab, station: Station, token: str = "ours") -> None:
    """Log in on the live page, with the keyboard alone."""
    await tab.open(f"http://127.0.0.1:{station.port}/live")
    await tab.run("document.getElementById('token').focus()")
    await tab.type(token)
    await tab.press("Enter", ENTER)


async def test_the_listener_survives_a_restart_in_a_browser(world: World, tab: Tab) -> None:
    """`client.js` authenticates by message, resumes after a restart, and hands each event on once."""
    async with world.broadcaster(limits=QUICK) as station:
        await tab.open(f"http://127.0.0.1:{station.port}/healthz")
        await tab.run(
            "import('/client.js').then(({follow}) => { window.got = []; window.live = 0; follow({"
            f"url: '{station.url}', token: 'ours', since: 0, onEvent: (event) => got.push(event.seq),"
            "onState: (name) => { live += name === 'live' } }) })"
        )
        await tab.until("live === 1")
        await world.commit_many(3)
        await tab.until("got.length >= 3")
    await world.commit_many(3)
    async with world.server(limits=QUICK).running("127.0.0.1", station.port):
        await tab.until("got.length >= 6")

        assert await tab.run("got") == [1, 2, 3, 4, 5, 6]


async def test_the_live_page_shows_what_happens_and_what_was_missed(world: World, tab: Tab, screenshots: Path) -> None:
    """Log in by keyboard, see events in words, lose the server, and see what was missed marked as replayed."""
    async with world.broadcaster(limits=QUICK) as station:
        await follow(tab, station)
        await tab.until("document.getElementById('state').dataset.state === 'live'")
        await world.commit(make_event(), make_event(EventName.NOTE_CREATED))
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 2")
        first = await tab.run("document.querySelector('#events li[data-seq=\"1\"]').innerText")
        note = await tab.run("document.querySelector('#events li[data-seq=\"2\"]').innerText")
        roles = await tab.roles()
    await tab.until("document.getElementById('state').dataset.state !== 'live'")
    await world.commit(make_event(), make_event())
    async with world.server(limits=QUICK).running("127.0.0.1", station.port):
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 4")
        await world.commit(make_event())
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 5")
        marked = await tab.run(
            "[...document.querySelectorAll('.badge')].map((b) => +b.parentElement.dataset.seq).sort()"
        )
        count = await tab.run("document.getElementById('count').innerText")
        picture = await tab.screenshot()
    keep(screenshots / "live.png", picture)

    assert "Call ended" in first
    assert "Completed after 12 s." in first
    assert "Ruft später zurück – „bitte“" in note
    assert ("log", "Feed") in roles
    assert "status" in {role for role, _ in roles}
    assert marked == [3, 4]
    assert count == "5 events, 2 of them replayed."
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    # The browser reports the connection that was refused while the server was away; nothing else.
    assert all("ERR_CONNECTION_REFUSED" in complaint or "WebSocket" in complaint for complaint in tab.complaints)


async def test_the_live_page_forgets_who_was_erased(world: World, tab: Tab) -> None:
    """What is shown of a person goes when they are erased, also where only other events were chosen."""
    async with world.broadcaster(limits=QUICK) as station:
        await tab.open(f"http://127.0.0.1:{station.port}/live")
        await tab.run("document.querySelector('input[value=message_status]').checked = false")
        await tab.run("document.getElementById('token').focus()")
        await tab.type("ours")
        await tab.press("Enter", ENTER)
        await tab.until("document.getElementById('state').dataset.state === 'live'")
        await world.commit(make_event(EventName.NOTE_CREATED), make_event(EventName.NOTE_CREATED, contact_id="e" * 24))
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 2")
        await world.commit(make_event(EventName.CONTACT_ERASED))
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 3")
        theirs, others, told = [
            await tab.run(f"document.querySelector('#events li[data-seq=\"{number}\"]').innerText")
            for number in (1, 2, 3)
        ]

    assert "Ruft später" not in theirs
    assert "erased since" in theirs
    assert "Ruft später" in others
    assert "A person was erased" in told


async def test_the_live_page_says_what_is_wrong(world: World, tab: Tab) -> None:
    """A wrong token brings the form back with an alert, and the focus where it is needed."""
    async with world.broadcaster(limits=QUICK) as station:
        await follow(tab, station, token="nobody")
        await tab.until("!document.getElementById('notice').hidden")

        assert "Invalid token" in await tab.run("document.getElementById('notice').innerText")
        assert await tab.run("document.activeElement.id") == "token"
        assert await tab.run("document.getElementById('feed').hidden")


async def test_the_live_page_shows_markup_as_text(world: World, tab: Tab) -> None:
    """What callers and agents say is text, never markup."""
    async with world.broadcaster(limits=QUICK) as station:
        await follow(tab, station)
        await tab.until("document.getElementById('state').dataset.state === 'live'")
        event = make_event(EventName.NOTE_CREATED)
        event.data["note"] = "<img src=x onerror='document.title = 1'><b>bold</b>"
        await world.commit(event)
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 1")

        assert "<b>bold</b>" in await tab.run("document.querySelector('#events li').innerText")
        assert await tab.run("document.querySelectorAll('#events img').length") == 0


async def test_the_readable_document_opens(world: World, tab: Tab) -> None:
    """`/events` is styled and complete under its own content security policy."""
    async with world.broadcaster() as station:
        await tab.open(f"http://127.0.0.1:{station.port}/events")

        told = sum(len(operation["messages"]) for operation in published_events.document()["operations"].values())
        assert await tab.run("document.querySelectorAll('h3').length") == told
        assert await tab.run("getComputedStyle(document.body).maxWidth") == "864px"
    assert tab.complaints == []
