"""What browsers are told about pages: run nothing foreign, guess nothing, give nothing away, be framed by nobody."""

import re
from pathlib import Path

import pytest

from tests.support.api import Api, running_api

pytestmark = pytest.mark.any_engine

PAGES = ("/docs/", "/events", "/live")
DATA = ("/openapi.json", "/events.json", "/client.js", "/healthz", "/metrics", "/docs/swagger-ui-bundle.js", "/nowhere")


def directives(policy: str) -> dict[str, set[str]]:
    return {name: set(values) for name, *values in (part.split() for part in policy.split(";"))}


async def test_nothing_is_guessed_and_no_address_given_away(api: Api, subtests: pytest.Subtests) -> None:
    """A browser takes a document for what it is said to be, and tells nobody where its reader came from."""
    for path in (*PAGES, *DATA, "/docs"):
        with subtests.test(path=repr(path)[:60]):
            answer = await api.http.get(path)

            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_page_runs_its_own_scripts_only_and_is_framed_by_nobody(api: Api, subtests: pytest.Subtests) -> None:
    """Whatever a caller managed to have shown there, it is not run."""
    for path in PAGES:
        with subtests.test(path=repr(path)[:60]):
            answer = await api.http.get(path)
            policy = directives(answer.headers["content-security-policy"])

            assert (
                policy["default-src"]
                == policy["frame-ancestors"]
                == policy["base-uri"]
                == policy["form-action"]
                == {"'none'"}
            )
            assert policy["script-src"] <= {"'self'"} | {
                one for one in policy["script-src"] if one.startswith("'sha256-")
            }
            assert len(policy["script-src"]) == 1 + len(re.findall(r"<script(?: type=\"module\")?>", answer.text))


async def test_a_page_connects_to_the_api_and_the_broadcaster_alone(api: Api) -> None:
    """By either name of this machine, and by what the page itself says as well as by its header."""
    port = api.relay.rules.realtime_url.rsplit(":", 1)[1].split("/")[0]
    local = {f"ws://{name}:{port}" for name in ("127.0.0.1", "localhost")}
    for path in PAGES:
        answer = await api.http.get(path)
        policies = [answer.headers["content-security-policy"], *re.findall(r'Policy" content="([^"]+)"', answer.text)]
        said = [directives(policy)["connect-src"] for policy in policies if "connect-src" in directives(policy)]

        assert said == [{"'self'"} | local] * (2 if path == "/live" else 1)


async def test_a_page_connects_to_the_broadcasters_public_address(tmp_path: Path) -> None:
    """Where there is one, and nowhere else."""
    async with running_api(tmp_path, realtime_public_url="wss://live.example/v1") as api:
        policy = directives((await api.http.get("/live")).headers["content-security-policy"])

    assert policy["connect-src"] == {"'self'", "wss://live.example"}


@pytest.mark.parametrize("path", ["/live", "/nowhere", "/api/calls/ingest", "/healthz"])
@pytest.mark.parametrize(
    ("public_url", "said"), [("https://relay.example", "max-age=31536000"), ("http://relay.example", None), ("", None)]
)
async def test_browsers_are_told_to_insist_on_https_where_it_is_spoken(
    tmp_path: Path, path: str, public_url: str, said: str | None
) -> None:
    """With every answer."""
    async with running_api(tmp_path, public_url=public_url) as api:
        answer = await api.http.get(path)

    assert answer.headers.get("strict-transport-security") == said


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-standalone-preset.js"])
async def test_no_source_map_is_served(api: Api, name: str) -> None:
    """They are half of what the page weighs, and for nobody here."""
    page, mapped = [await api.http.get(f"/docs/{path}") for path in (name, f"{name}.map")]

    assert (page.status_code, mapped.status_code) == (200, 404)
    assert mapped.json() == {"success": False, "error": "Not found"}


async def test_pages_can_be_switched_off(tmp_path: Path) -> None:
    """What programs read is still there."""
    async with running_api(tmp_path, pages="off") as api:
        off = {path: (await api.http.get(path)).status_code for path in ("/docs", *PAGES, "/client.js")}
        on = {path: (await api.http.get(path)).status_code for path in ("/openapi.json", "/events.json", "/healthz")}

    assert set(off.values()) == {404}
    assert set(on.values()) == {200}


async def test_a_page_is_answered_to_head_as_to_get(api: Api) -> None:
    """Without a body there is no script to name, and everything else holds."""
    answer = await api.http.head("/live")

    assert (answer.status_code, answer.content) == (200, b"")
    assert directives(answer.headers["content-security-policy"])["frame-ancestors"] == {"'none'"}


async def test_answers_of_the_api_are_left_as_they_are(api: Api) -> None:
    """They are JSON for programs."""
    answer = await api.tool("transfer", {})

    assert "content-security-policy" not in answer.headers
