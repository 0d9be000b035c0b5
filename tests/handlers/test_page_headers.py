"""What browsers are told about pages: run nothing foreign, guess nothing, give nothing away, be framed by nobody."""

import re

import pytest

from tests.support.api import Api

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


async def test_a_page_is_answered_to_head_as_to_get(api: Api) -> None:
    """Without a body there is no script to name, and everything else holds."""
    answer = await api.http.head("/live")

    assert (answer.status_code, answer.content) == (200, b"")
    assert directives(answer.headers["content-security-policy"])["frame-ancestors"] == {"'none'"}


async def test_answers_of_the_api_are_left_as_they_are(api: Api) -> None:
    """They are JSON for programs."""
    answer = await api.tool("transfer", {})

    assert "content-security-policy" not in answer.headers
