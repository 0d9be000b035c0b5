"""What a log line shows, and what it never does."""

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import re2
import structlog
from hypothesis import given
from hypothesis import strategies as st

import logs
from domain.phones import mask
from logs import MAX_LINE, MAX_TEXT, configure_logging, hide
from tests.support.processes import Running, accepts, environment, run, running

SECRETS = {
    "API key": "tk_live_0123456789abcdef0123456789abcdef0123",
    "tool secret": "0123456789abcdef" * 4,
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "JWT without a signature": "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
    "ElevenLabs key": "sk_1234567890abcdef",
    "ElevenLabs webhook secret": "wsec_1234567890abcdef",
    "header": "Authorization: Bearer opaque-value-7",
    "header in capitals": "AUTHORIZATION: BEARER opaque-value-7",
    "header without a scheme": "authorization: opaque-value-7",
    "basic": "Basic b3BhcXVlLXZhbHVlLTc=",
    "headers as a dictionary": "{'xi-api-key': 'opaque-value-7', 'Accept': '*/*'}",
    "headers as pairs": "[(b'authorization', b'Bearer opaque-value-7'), (b'x-api-key', b'opaque-value-7')]",
    "query": "https://x.example/?access_token=opaque-value-7&page=2",
    "JSON": '{"api_key": "opaque-value-7", "password": "opaque-value-7"}',
    "user in an address": "postgresql://relay:opaque-value-7@db.example/relay",
}
PHONES = ["+14165550100", "+1 (416) 555-0100", "+1-416-555-0100", "+442071838750", "%2B14165550100"]
TELLING = re.compile(r"[0-9a-f]{16}|SflKx|1234567890|eyJ[A-Za-z0-9]|opaque|b3BhcX|555.?0100|8387")


@contextlib.contextmanager
def logging_as(form: str, level: str = "info") -> Iterator[list[str]]:
    """Log in that form for a while, into the list that is yielded, one line an item."""
    root = logging.getLogger()
    handlers, before = root.handlers, root.level
    lines: list[str] = []
    try:
        configure_logging(level, form)
        # A logger kept from here would go on writing here, whatever the tests after this one listen to.
        structlog.configure(cache_logger_on_first_use=False)
        (handler,) = root.handlers
        handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
        yield lines
    finally:
        logging.captureWarnings(capture=False)
        root.handlers, root.level = handlers, before
        structlog.reset_defaults()


# Masking


@pytest.mark.parametrize("text", [*SECRETS.values(), *PHONES])
def test_secrets_and_numbers_are_masked_wherever_they_stand(text: str) -> None:
    """In the event, in a value, deep inside one, as a key, as bytes, as an object, and from the standard library."""
    with logging_as("json") as lines:
        log, standard = structlog.get_logger(), logging.getLogger("vendor.library")
        log.info(f"said {text} aloud", value=text, deep={"list": [text, (text,), {text}], text: 1}, raw=text.encode())
        log.info("an object", error=ValueError(text))
        standard.warning("said %s aloud", text)
        standard.warning("extra", extra={"address": text})

    assert len(lines) == 4
    for line in lines:
        assert not TELLING.search(json.dumps(json.loads(line), ensure_ascii=False)), line


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("text", [*SECRETS.values(), *PHONES])
def test_exceptions_are_masked_and_show_no_variables(form: str, text: str) -> None:
    """Not even at a terminal, where prettier tracebacks would show what every name stood for."""
    with logging_as(form) as lines:
        try:
            _fail(text)
        except ValueError:
            structlog.get_logger().exception("it failed")
            logging.getLogger("vendor.library").exception("it failed there")

    assert len(lines) == 2
    for line in lines:
        assert "ValueError: cannot connect with " in line
        assert "in _fail" in line
        assert not TELLING.search(line), line


def _fail(password: str) -> None:
    connection = {"password": password, "plain": password}
    raise ValueError("cannot connect with " + connection["plain"])


def test_a_telling_name_hides_any_value() -> None:
    """Whatever a password looks like."""
    names = ("password", "auth_token", "toolSecret", "Authorization", "X-Api-Key", "apiKey", "credentials", "signature")
    with logging_as("json") as lines:
        structlog.get_logger().info("x", **dict.fromkeys(names, "plain"), inner={name: ["plain"] for name in names})
    line = json.loads(lines[0])

    assert "plain" not in lines[0]
    assert {line[name] for name in names} == {"[hidden]"}


def test_what_is_not_secret_stays_readable() -> None:
    """Ids, counts, times, addresses and sentences are what logs are for."""
    facts = {
        "call_id": "6a02f8b3f1d2c4e5a6b7c8d9",
        "at": "2026-05-15T09:10:00.000Z",
        "offset": "2026-05-15T09:10:00+00:00",
        "path": "/api/calls/ingest",
        "count": 14165550100,
        "ratio": 0.5,
        "nothing": None,
        "yes": True,
        "url": "https://api.example/v1/x?page=2",
        "sentence": "The recording is no audio, so nothing was stored.",
        "sum": "1+1=2",
    }
    with logging_as("json") as lines:
        structlog.get_logger().info("call.recorded", **facts)
    line = json.loads(lines[0])

    assert line | facts == line
    assert (line["event"], line["level"]) == ("call.recorded", "info")


@given(before=st.text(), digits=st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True), after=st.text(alphabet="ab .,;"))
def test_a_number_is_masked_in_any_surroundings(before: str, digits: str, after: str) -> None:
    """All but its last two digits."""
    line = hide(None, "info", {"event": before + digits + after})

    assert digits not in line["event"]
    assert digits[:-2] not in line["event"]


def test_a_masked_number_keeps_its_last_two_digits() -> None:
    """Enough to tell two callers apart, too little to ring one."""
    assert mask("+14165550100") == "••••••••••00"
    assert mask("12") == "12"
    assert mask("") == ""


# Cutting

# For each kind of secret, what makes a pattern with a worst case look at the same characters again and again.
WORST = {
    "JWT": "-eyJ",
    "JWT with a dot": "-eyJ-.eyJ",
    "key": "-sk_",
    "hexadecimal": "0123456789abcdef",
    "announced": "bearer basic ",
    "address": "://:",
    "named": "password= password",
    "number": "+1 (",
    "digits": "+1 2-",
}


@pytest.mark.parametrize("piece", WORST.values(), ids=WORST)
@pytest.mark.parametrize("place", ["event", "value", "inside", "exception"])
def test_a_pattern_never_looks_at_more_than_the_limit_whatever_is_said(
    monkeypatch: pytest.MonkeyPatch, piece: str, place: str
) -> None:
    """A hundred times the text costs no pattern a character more."""
    looked = Looked(monkeypatch)
    seen = []
    for size in (4 * logs.MAX_TRACEBACK, 400 * logs.MAX_TRACEBACK):
        looked.characters = 0
        text = piece * (size // len(piece))
        lines: dict[str, dict[str, Any]] = {
            "event": {"event": text},
            "value": {"event": "x", "value": text},
            "inside": {"event": "x", "value": {"list": [text, text.encode()], text: 1}},
            "exception": {"event": "x", "exception": f"Traceback\n{text}"},
        }
        hide(None, "info", lines[place])
        seen.append(looked.characters)

    assert seen[0] > MAX_TEXT
    assert seen[1] <= seen[0] + 100  # the line says how long each text was, which has two digits more


class Looked:
    """Counts the characters that are given to every pattern of the module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.characters = 0
        for name, pattern in self.patterns().items():
            monkeypatch.setattr(logs, name, Counted(pattern, self))

    @staticmethod
    def patterns() -> dict[str, Any]:
        kind = type(re2.compile("x"))
        return {name: value for name, value in vars(logs).items() if isinstance(value, kind)}


@dataclass
class Counted:
    pattern: Any
    looked: Looked

    def search(self, text: str) -> Any:
        self.looked.characters += len(text)
        return self.pattern.search(text)

    def sub(self, replacement: Any, text: str) -> Any:
        self.looked.characters += len(text)
        return self.pattern.sub(replacement, text)


def test_every_pattern_that_masks_runs_in_linear_time() -> None:
    """All of them belong to RE2, which knows no other; the one that escapes is a class of single characters."""
    others = {name: value.pattern for name, value in vars(logs).items() if isinstance(value, re.Pattern)}

    assert len(Looked.patterns()) == 8
    assert others.keys() == {"_CONTROLS"}
    assert not re.search(r"[*+?{(]", others["_CONTROLS"])


@pytest.mark.parametrize("text", [*SECRETS.values(), *PHONES])
def test_a_secret_that_is_cut_in_two_is_masked(text: str) -> None:
    """Wherever the cut goes through it: half of a secret is no longer what the pattern looks for."""
    for kept in range(1, len(text) + 1):
        filling = "word " * (MAX_TEXT // 5 + 1)
        said = filling[: MAX_TEXT - kept - 1] + " " + text + " and more of it"
        shown = hide(None, "info", {"event": "x", "value": said, "inside": [said]})

        assert shown["value"].endswith(f"[cut, {len(said)} characters]")
        assert shown["value"].startswith("word word ")
        for value in (shown["value"], shown["inside"][0]):
            assert not TELLING.search(value), value


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_long_traceback_keeps_its_beginning_and_its_end(form: str) -> None:
    """Where it began and what was raised; how much is missing between them is said."""
    with logging_as(form) as lines:
        try:
            _descend(300)
        except ValueError:
            structlog.get_logger().exception("it failed")
            logging.getLogger("vendor.library").exception("it failed there")

    assert len(lines) == 2
    for line in lines:
        assert len(line) <= MAX_LINE
        assert "Traceback (most recent call last)" in line
        assert "test_a_long_traceback" in line
        assert re.search(r"\[cut, [0-9]{3,} lines\]", line)
        assert "ValueError: xxxxx" in line
        assert "[cut, 300012 characters]" in line


def _descend(depth: int) -> None:
    if not depth:
        raise ValueError("x" * 300_000)
    if depth % 2:  # two lines in turns, or Python itself would leave out the repeated ones
        _descend(depth - 1)
    else:
        _descend(depth - 1)


def _deep(depth: int) -> Any:
    return {"in": _deep(depth - 1), "text": "x" * 5000} if depth else "the end"


LARGE: dict[str, dict[str, Any]] = {
    "a text": {"value": "x" * 300_000},
    "a text that is escaped": {"value": "\x1b" * 300_000},
    "a text beyond the basic plane": {"value": "\U0001f4de" * 300_000},
    "quotes": {"value": '"' * 300_000},
    "many values": {f"value_{number}": "x" * 500 for number in range(500)},
    "names without end": {"n" * 100_000: 1, "m" * 100_000: "x"},
    "many items": {"value": [f"item {number}" for number in range(100_000)]},
    "many names": {"value": {f"name {number}": number for number in range(100_000)}},
    "containers in containers": {"value": _deep(200)},
    "containers side by side": {"value": [[["x" * 2000] * 50] * 50] * 50},
    "a large number": {"value": 10**4000},
    "bytes": {"value": b"\xff" * 300_000},
    "an object": {"value": ValueError("x" * 300_000)},
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("given", LARGE.values(), ids=LARGE)
def test_no_line_is_longer_than_the_limit_whatever_it_holds(form: str, given: dict[str, Any]) -> None:
    """And each still says what happened, and which request it belongs to."""
    with logging_as(form) as lines:
        structlog.get_logger().warning("it.happened", request_id="abc", **given)
        logging.getLogger("vendor.library").warning("it.happened there", extra=given | {"request_id": "abc"})

    assert len(lines) == 2
    for line in lines:
        assert len(line) <= MAX_LINE
        assert "it.happened" in line
        assert "abc" in line
        assert form == "console" or json.loads(line)["level"] == "warning"


# Lines


@given(text=st.text())
def test_a_line_is_one_ascii_line_whatever_was_said(text: str) -> None:
    """No character ends the line early or reaches the terminal as a command."""
    with logging_as("json") as lines:
        structlog.get_logger().info("said", value=text)
        logging.getLogger("vendor.library").warning("%s", text)

    assert len(lines) == 2
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)


@given(text=st.text(alphabet=st.characters(categories=["Cc", "Zl", "Zp", "Lu"])))
def test_control_characters_never_reach_a_terminal(text: str) -> None:
    """Written out, they neither forge a line nor colour the next."""
    with logging_as("console") as lines:
        structlog.get_logger().info(text, value=text)
        logging.getLogger("vendor.library").warning("%s", text)

    assert len(lines) == 2
    for line in lines:
        assert re.sub(r"\x1b\[[0-9]*m", "", line).isprintable(), line


def test_warnings_are_log_lines_too() -> None:
    """A library's complaint must not break what reads the log."""
    with warnings.catch_warnings(), logging_as("json") as lines:
        warnings.simplefilter("always")
        warnings.warn("old ways of +14165550100", stacklevel=1)

    assert "old ways" in json.loads(lines[0])["event"]
    assert "4165550100" not in lines[0]


def test_the_level_is_kept_by_both_kinds_of_loggers() -> None:
    """What is below it is not written."""
    with logging_as("json", "warning") as lines:
        structlog.get_logger().info("quiet")
        logging.getLogger("vendor.library").info("quiet")
        structlog.get_logger().warning("loud")

    assert [json.loads(line)["event"] for line in lines] == ["loud"]


# Requests, as a real process logs them


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    folder: Path = tmp_path_factory.mktemp("logs")
    env = environment(folder)
    assert run("migrate", env=env, folder=folder).returncode == 0
    with running("serve", env=env, folder=folder) as api:
        api.until(lambda: accepts(env["API_PORT"]))
        yield f"http://127.0.0.1:{env['API_PORT']}", api


def lines_of(api: Running, request_id: str) -> list[dict[str, Any]]:
    """Wait for the line that ends a request, and return every line that carries its id."""

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in api.errors.split("\n")[:-1]]
        return [line for line in lines if line.get("request_id") == request_id]

    api.until(lambda: any(line["event"] == "request" for line in found()))
    return found()


@pytest.mark.parametrize("given_id", ["abc", "a" * 128, "01HV-7:x.y_z"])
def test_a_request_id_is_taken_returned_and_logged(served: tuple[str, Running], given_id: str) -> None:
    """So that a caller can ask about one request."""
    url, api = served
    response = httpx.get(f"{url}/api/calls/voice-ai/config", headers={"X-Request-Id": given_id}, trust_env=False)
    (line,) = lines_of(api, given_id)

    assert response.headers["X-Request-Id"] == given_id
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/calls/voice-ai/config", 401)


@pytest.mark.parametrize("given_id", ["", "a" * 129, "a b", 'a"b', "a\\nb", "Bearer x", "{}", "é", "a/b", "<b>"])
def test_a_request_id_that_is_no_plain_token_is_replaced(served: tuple[str, Running], given_id: str) -> None:
    """It would end up in log lines and in other people's tools."""
    url, api = served
    response = httpx.get(f"{url}/nowhere", headers={b"X-Request-Id": given_id.encode()}, trust_env=False)
    made = response.headers["X-Request-Id"]

    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert lines_of(api, made)


def test_a_path_of_64_kilobytes_is_one_short_line(served: tuple[str, Running]) -> None:
    """It says that it was cut, and holds nothing that looks like the beginning of a token."""
    url, api = served
    path = "/" + "-eyJ" * 15_000
    answer = httpx.get(url + path, headers={"X-Request-Id": "a-long-path"}, trust_env=False)
    (line,) = lines_of(api, "a-long-path")

    assert answer.status_code == 404
    assert line["path"] == f"/-[hidden]… [cut, {len(path)} characters]"
    assert max(len(written) for written in api.errors.split("\n")) <= 4096


def test_every_answer_carries_an_id_of_its_own(served: tuple[str, Running]) -> None:
    """Errors too, and paths that do not exist."""
    url, _ = served
    paths = ("/healthz", "/nowhere", "/api/calls/ingest", "/openapi.json", "/metrics", "/docs/")
    ids = {httpx.get(url + path, trust_env=False).headers["X-Request-Id"] for path in paths}

    assert len(ids) == len(paths)
