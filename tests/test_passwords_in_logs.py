"""A password is any text: whatever is in it, no log line holds it, also while the database fails."""

import contextlib
import io
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from argon2 import PasswordHasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from actions import administer
from domain.identifiers import new_id
from domain.principals import Role
from keyring.passwords import MIN_LENGTH
from logs import configure_logging
from openapi import references
from persistence import units, users
from tests.support.api import Api, running_api
from tests.support.contract import CONTRACT
from tests.support.spellings import findings

LOGIN = "/api/auth/login"
NASTY = [
    "all-in-small-letters",
    'quo"ted "twice" over',
    "it's 'quoted'; really, & = : more",
    "password=hunter2;token=abc",
    "%s %(password)s {password} ${HOME}",
    "C:\\new\\table\\u0041\\",
    "пароль-с-буквами-и-пробелом ",
    "💥 emoji and \u202e turned round",
    "tabs\tand\nlines\r\nin it",
    '\'; DROP TABLE "user"; --',
    "<script>alert('&amp;')</script>",
]
PASSWORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=MIN_LENGTH, max_size=40)


# What the contract lets in as an email address.
_LOGIN_BODY = CONTRACT.served["paths"][LOGIN]["post"]["requestBody"]["content"]["application/json"]["schema"]
_ADDRESS = re.compile(references.follow(CONTRACT.served, _LOGIN_BODY)["properties"]["email"]["pattern"])


def is_address(text: str) -> bool:
    return _ADDRESS.search(text) is not None


@pytest.fixture
async def api(on_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var", sign_in_attempts_per_address=100_000) as api:
        # What a hash costs is tested elsewhere.
        monkeypatch.setattr(api.relay.passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield api


@contextlib.contextmanager
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Log everything, down to the last word of the libraries; yields what was written."""
    root, written = logging.getLogger(), io.StringIO()
    before, level = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    configure_logging("debug", "json")
    # A logger kept from here would go on writing here, whatever the tests after this one listen to.
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield written.getvalue
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
        root.handlers = before
        root.setLevel(level)


def refused_row(email: str) -> Any:
    """Fail with an error in which PostgreSQL quotes the whole row."""
    units.engine().execute_sql(f"INSERT INTO contact_note (id, note) VALUES ('1', {units.engine().param})", (email,))


def refused_value(email: str) -> Any:
    """Fail with an error that quotes the value: PostgreSQL's own, or one as a library might raise it."""
    engine = units.engine()
    engine.execute_sql(f"SELECT CAST({engine.param} AS integer)", (email,))
    raise LookupError(email)


async def use(api: Api, password: str) -> None:
    """Show the password wherever people put one: rightly, wrongly, and where it does not belong."""
    email = f"{new_id()}@example.com"
    await administer.create_user(
        api.relay, api.organization_id, email=email, full_name="Sam", password=SecretStr(password), role=Role.AGENT
    )
    tried: list[tuple[Any, Any, int]] = [
        (email, password, 200),
        (email, password + "x", 401),
        (password, password, 401 if is_address(password) else 400),
        ([password], password, 400),
        (email, {"password": password}, 400),
    ]
    for name, secret, status in tried:
        answer = await api.http.post(LOGIN, json={"email": name, "password": secret})
        assert answer.status_code == status, answer.text
    await api.http.post(LOGIN, content=f'{{"email": "{password}'.encode())
    with contextlib.suppress(httpx.InvalidURL):
        await api.http.get("/api/auth/verify-token", params={"password": password})


@given(password=st.sampled_from(NASTY) | PASSWORDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_password_is_in_no_log_line_however_it_is_used(
    api: Api, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """Shown rightly, wrongly, and where it does not belong; the log holds neither it nor a piece of it."""
    with logged(monkeypatch) as written:
        await use(api, password)
        lines = written()

    assert lines.count("sign_in.failed") >= (2 if is_address(password) else 1)
    assert list(findings(password, lines)) == []


@pytest.mark.parametrize("password", [text for text in NASTY if is_address(text)])
@pytest.mark.parametrize("fault", [refused_row, refused_value])
async def test_a_password_is_in_no_log_line_when_the_database_quotes_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, password: str, fault: Callable[[str], Any]
) -> None:
    """What the database quotes of a row or a value stays out of it."""
    with logged(monkeypatch) as written:
        monkeypatch.setattr(users, "by_email", fault)
        answer = await api.http.post(LOGIN, json={"email": password, "password": password})
        lines = written()

    assert answer.status_code == 500
    assert "request.failed" in lines
    assert list(findings(password, lines)) == []
