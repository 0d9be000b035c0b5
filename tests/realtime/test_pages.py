import json
import re
from pathlib import Path

import httpx
import pytest

from realtime import pages
from tests.realtime.conftest import World
from tests.support import published_events
from tests.support.processes import accepts, environment, run, running


async def test_the_document_is_served_as_published(world: World) -> None:
    """`/events.json` is the published document, whatever reads the YAML."""
    async with world.broadcaster() as station:
        status, headers, body = await station.get("/events.json")

    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == published_events.document()


@pytest.mark.parametrize("path", ["/events", "/live", "/client.js"])
async def test_pages_are_served(world: World, path: str) -> None:
    """Each page is answered on the broadcaster's own port, as what it is."""
    async with world.broadcaster() as station:
        status, headers, body = await station.get(path)

    assert (status, int(headers["content-length"])) == (200, len(body))
    assert headers["content-type"].split(";")[0] == ("text/javascript" if path == "/client.js" else "text/html")


@pytest.mark.parametrize("path", ["/events", "/live", "/healthz", "/nowhere"])
async def test_nothing_may_be_framed_guessed_or_told_elsewhere(world: World, path: str) -> None:
    """What a page cannot say for itself is said with every answer."""
    async with world.broadcaster() as station:
        _, headers, _ = await station.get(path)

    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/live", "/healthz", "/nowhere"])
@pytest.mark.parametrize(("is_https", "said"), [(True, "max-age=31536000"), (False, None)])
async def test_browsers_are_told_to_insist_on_https_where_it_is_spoken(
    world: World, path: str, is_https: bool, said: str | None
) -> None:
    """With every answer, and with the answer that opens a socket."""
    async with world.broadcaster(is_https=is_https) as station:
        _, headers, _ = await station.get(path)
        async with station.listener() as listener:
            response = listener.connection.response

    assert headers.get("strict-transport-security") == said
    assert response is not None
    assert response.headers.get("Strict-Transport-Security") == said


def test_the_broadcaster_process_insists_on_https_where_its_address_is(tmp_path: Path) -> None:
    """What is set reaches the answers."""
    env = environment(tmp_path, realtime_public_url="wss://live.example/v1")
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    with running("broadcast", env=env, folder=tmp_path) as process:
        process.until(lambda: accepts(env["REALTIME_PORT"]))
        answer = httpx.get(f"http://127.0.0.1:{env['REALTIME_PORT']}/live", trust_env=False)

    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_the_readable_page_holds_every_message_and_close_code() -> None:
    """A person finds each message, its example and each close code."""
    page = pages.load()["/events"][1].decode()
    for message in published_events.document()["components"]["messages"].values():
        assert f'id="{message["name"]}"' in page
    for code in ("1012", "4401", "4498"):
        assert f"<td>{code}</td>" in page


@pytest.mark.parametrize("path", ["/events", "/live"])
def test_pages_load_nothing_from_elsewhere(path: str) -> None:
    """No placeholder is left, and no address of another host is in it."""
    page = pages.load()[path][1].decode()

    assert "{{" not in page.replace("${{", "")
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "Content-Security-Policy" in page
