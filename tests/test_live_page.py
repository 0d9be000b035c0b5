"""The live page as the API serves it, in a real browser; collected where there is a Chromium."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.chromium import browser
from tests.support.ports import free_port
from tests.support.up import environment, manage, running_up

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTER = 13


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[dict[str, str], dict[str, str]]]:
    """The environment of a running relay, and its demo."""
    env = environment(tmp_path_factory.mktemp("up") / "var")
    async with running_up(env) as running:
        yield env, running.demo


async def test_a_person_signs_in_and_sees_what_happens(
    up: tuple[dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    """A wrong password is told in words; the right one opens the feed, from the broadcaster's own port."""
    env, demo = up
    async with browser(tmp_path / "profile") as tab:
        await tab.open(f"{demo['apiUrl']}/live")
        for password, outcome in (
            ("wrong password", "!document.getElementById('notice').hidden"),
            (demo["superadminPassword"], "document.getElementById('state').dataset.state === 'live'"),
        ):
            await tab.run(f"document.getElementById('email').value = {demo['superadminEmail']!r}")
            await tab.run("document.getElementById('password').value = ''")
            await tab.run("document.getElementById('password').focus()")
            await tab.type(password)
            await tab.press("Enter", ENTER)
            await tab.until(outcome)
        await manage(env, "org", "contact", "Demo", "+14165550177", "Robin")
        await asyncio.to_thread(_note, demo)
        await tab.until("document.querySelectorAll('#events li[data-seq]').length === 1")
        shown = await tab.run("document.querySelector('#events li[data-seq=\"1\"]').innerText")

        assert "Wants a callback" in shown


async def test_the_operations_can_be_tried_out_under_the_policy_of_their_page(
    up: tuple[dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    """Swagger UI loads, lists every operation, and has nothing refused."""
    async with browser(tmp_path / "profile") as tab:
        await tab.open(f"{up[1]['apiUrl']}/docs/")
        await tab.until("document.querySelectorAll('.opblock').length > 4")

        assert tab.complaints == []


def _note(demo: dict[str, str], text: str = "Wants a callback.") -> None:
    answer = httpx.post(
        f"{demo['apiUrl']}/api/webhook/elevenlabs/tools/create-note",
        json={"phone_number": "+14165550177", "note": text},
        headers={"Authorization": f"Bearer {demo['toolSecret']}"},
        trust_env=False,
    )
    assert answer.json()["success"] is True


async def test_a_page_follows_the_api_where_sockets_are_blocked(
    up: tuple[dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    """The client that the API serves reads from the API, in a browser as well."""
    env, demo = up
    async with browser(tmp_path / "profile") as tab:
        await tab.call("Page.setBypassCSP", enabled=True)  # the page's own policy admits no script but its own
        await tab.open(f"{demo['apiUrl']}/live")
        await tab.run(
            "import('/client.js').then(({follow}) => { window.got = []; window.states = []; follow({"
            f"url: 'ws://127.0.0.1:{free_port()}/v1', token: '{demo['apiKey']}',"
            f"fallbackUrl: '{demo['apiUrl']}/api/events',"
            "onEvent: (event) => got.push(event.data.note), onState: (name) => states.push(name) }) })"
        )
        await tab.until("states.includes('polling')")
        await manage(env, "org", "contact", "Demo", "+14165550177", "Robin")
        await asyncio.to_thread(_note, demo, "Wants an invoice.")
        await tab.until("got.length === 1")

        assert await tab.run("got") == ["Wants an invoice."]
