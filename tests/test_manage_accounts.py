"""Accounts and the audit log from the command line, as real processes."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from tests.support.processes import accepts, environment, run, running

EMAIL, PASSWORD = "ann@acme.example", "correct horse"


class House:
    """A folder with an installation and one user in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.env = folder, environment(folder)
        for arguments in (["migrate"], ["org", "add", "Acme"], ["user", "add", "Acme", EMAIL, "--name", "Ann"]):
            assert self.run(*arguments).returncode == 0

    def run(self, *arguments: str, password: str = PASSWORD) -> CompletedProcess[str]:
        return run(*arguments, env=self.env | {"RELAY_PASSWORD": password}, folder=self.folder)

    def audited(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("audit", "--json", *arguments).stdout.splitlines()]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_users_are_listed_with_what_they_may_do(house: House) -> None:
    """Of one organization or of all."""
    assert house.run("org", "add", "Other").returncode == 0
    everybody, of_acme, of_other = (house.run("user", "list", *name).stdout for name in ([], ["Acme"], ["Other"]))

    assert EMAIL in everybody
    assert "agent" in everybody
    assert of_acme == everybody
    assert EMAIL not in of_other


def test_what_the_command_line_does_to_accounts_can_be_read_in_the_audit_log(house: House) -> None:
    """Newest first, for people and for programs."""
    assert "Changed the password" in house.run("user", "password", EMAIL, password="another password").stdout
    assert "Signed ann@acme.example out" in house.run("user", "sign-out", EMAIL).stdout
    assert house.run("key", "api", EMAIL).returncode == 0
    entries = house.audited()

    assert [entry["action"] for entry in entries] == [
        "api_key.created",
        "user.signed_out",
        "user.password_changed",
        "user.created",
    ]
    assert {entry["client"] for entry in entries} == {"command line"}
    assert [entry["action"] for entry in house.audited("--action", "user.created")] == ["user.created"]
    assert house.audited("--since", "2200-01-01T00:00:00Z") == []
    assert len(house.run("audit", "--limit", "2").stdout.splitlines()) == 2
    assert "user.signed_out" in house.run("audit").stdout


IMPOSSIBLE: list[tuple[list[str], str]] = [
    (["user", "password", "nobody@acme.example"], "nobody@acme.example"),
    (["user", "sign-out", "nobody@acme.example"], "nobody@acme.example"),
    (["user", "list", "Nobody"], "Nobody"),
    (["audit", "--organization", "Nobody"], "Nobody"),
    (["audit", "--since", "yesterday"], "yesterday"),
]


def test_what_cannot_be_done_is_one_sentence(house: House, subtests: pytest.Subtests) -> None:
    """It names what was not found or not understood."""
    for arguments, word in IMPOSSIBLE:
        with subtests.test(arguments=repr(arguments)[:60]):
            done = house.run(*arguments)

            assert done.returncode == 1
            assert done.stdout == ""
            assert done.stderr.startswith("tether-relay: ")
            assert word in done.stderr


def test_a_password_that_is_too_short_is_refused(house: House) -> None:
    """The old one stays."""
    done = house.run("user", "password", EMAIL, password="short")

    assert done.returncode == 1
    assert "8" in done.stderr
    assert [entry["action"] for entry in house.audited()] == ["user.created"]


@pytest.mark.parametrize(
    ("trusted", "come_from"), [("127.0.0.1/32,::1/128", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(house: House, trusted: str, come_from: str) -> None:
    """Otherwise anybody could sign in from everywhere, and guess on from there."""
    house.env["TRUSTED_PROXIES"] = trusted
    port = int(house.env["API_PORT"])
    with running("serve", env=house.env, folder=house.folder) as server:
        server.until(lambda: accepts(port))
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/auth/login",
            json={"email": EMAIL, "password": PASSWORD},
            headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"},
            trust_env=False,
        )
    (entry,) = house.audited("--action", "user.signed_in")

    assert answer.status_code == 200
    assert (entry["client"], entry["who"]) == (come_from, EMAIL)
