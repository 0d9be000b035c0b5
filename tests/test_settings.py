"""The settings, and the two places people read about them."""

import json
import multiprocessing
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from actions.places import Places
from actions.relay import Rules
from config import Settings, load_settings
from domain.errors import ConfigurationError
from handlers.protocol import limited
from openapi.serving.bodies import BodyLimits
from providers.download import DownloadLimits
from providers.elevenlabs import ElevenLabs
from realtime.limits import Limits

ROOT = Path(__file__).parents[1]
EXAMPLE = (ROOT / ".env.example").read_text()
README = (ROOT / "README.md").read_text()
TELLTALE = "teLLtaLe-" * 5


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets counts, whatever the machine it runs on has set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def as_text(value: object) -> str:
    """Write a default the way it is set in the environment."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return "" if value is None else str(value)


# What people read


def test_the_example_lists_every_setting_with_its_default_and_nothing_else() -> None:
    """In whatever order reads best; a line that is commented out is the default."""
    listed = dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    defaults = {name.upper(): as_text(field.get_default()) for name, field in Settings.model_fields.items()}

    assert listed == defaults


def test_the_example_sets_nothing_and_gives_a_reason_for_everything() -> None:
    """Copied as it is it changes nothing, and every group of settings begins with a sentence."""
    head, *groups = EXAMPLE.strip().split("\n\n")
    setting = re.compile(r"# [A-Z0-9_]+=")

    assert all(line.startswith("# ") for line in EXAMPLE.splitlines() if line)
    assert not any(setting.match(line) for line in head.splitlines())
    for group in groups:
        first, *rest = group.splitlines()
        assert not setting.match(first), f"no reason is given for {first}"
        assert any(setting.match(line) for line in rest), f"no setting follows {first!r}"


def test_the_example_is_read_as_the_defaults(tmp_path: Path) -> None:
    """Also when every line of it is made to count."""
    file = tmp_path / "everything.env"
    file.write_text(re.sub(r"^# ([A-Z0-9_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))

    assert Settings(_env_file=file) == settings()


def test_the_readme_names_only_what_exists() -> None:
    """Make targets, commands, settings and files: whoever follows it to the letter gets there."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    links = re.findall(r"\]\(([^):]+)\)", README)

    assert {"run", "test"} <= named <= targets
    assert [link for link in links if not (ROOT / link).exists()] == []
    for setting in ("PUBLIC_URL", "JWT_SECRET", "ENCRYPTION_KEYS", "R2_ENDPOINT_URL", "R2_BUCKET"):
        assert setting in README
        assert setting.lower() in Settings.model_fields


@pytest.mark.processes
def test_make_help_explains_every_target() -> None:
    """One line each, and the targets people are told of are there."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    explained = set(re.findall(r"^ +make ([a-z-]+) +\S", printed, re.MULTILINE))

    assert explained == targets
    assert {"help", "install", "run", "test", "check", "generate"} <= explained


# Secrets


def test_secrets_are_hidden_when_settings_are_shown() -> None:
    """Every setting that holds one; in repr, in str and in what is dumped."""
    hidden = [name for name, field in Settings.model_fields.items() if SecretStr in _kinds(field.annotation)]
    shown = settings(**dict.fromkeys(hidden, TELLTALE))

    assert set(hidden) >= {"jwt_secret", "encryption_keys", "r2_secret_access_key"}
    assert {name for name in Settings.model_fields if re.search("secret|password|_keys$", name)} <= {
        *hidden,
        "tool_secret_overlap_minutes",
        "tool_secret_rotation_days",
    }
    for text in (repr(shown), str(shown), str(shown.model_dump()), shown.model_dump_json()):
        assert TELLTALE not in text


def _kinds(annotation: Any) -> set[Any]:
    return {annotation}.union(*(_kinds(inner) for inner in get_args(annotation)))


def test_a_bad_secret_is_not_shown_in_the_complaint() -> None:
    """Nor in what it was raised from."""
    with pytest.raises(ConfigurationError, match="JWT_SECRET") as raised:
        load_settings(_env_file=None, jwt_secret="teLLtaLe")

    assert "teLLtaLe" not in str(raised.value) + str(raised.value.__cause__)


def test_secrets_are_made_on_first_use_and_kept(tmp_path: Path) -> None:
    """In a file for its owner alone; what is set wins over what is kept."""
    data_dir = tmp_path / "deep" / "var"
    first = load_settings(_env_file=None, data_dir=data_dir)
    again = load_settings(_env_file=None, data_dir=data_dir)
    chosen = load_settings(_env_file=None, data_dir=data_dir, jwt_secret=TELLTALE)
    file = data_dir / "secrets.json"

    assert first.jwt_secret == again.jwt_secret
    assert first.encryption_keys == again.encryption_keys == chosen.encryption_keys
    assert chosen.jwt_secret == SecretStr(TELLTALE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(data_dir.iterdir()) == [file]
    assert first.encryption_keys is not None
    assert Fernet(first.encryption_keys.get_secret_value())


@pytest.mark.processes
def test_processes_that_start_at_once_agree_on_the_secrets(tmp_path: Path) -> None:
    """The first whole file wins, however many are written."""
    for attempt in range(10):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            found = pool.map(_secret_of, [tmp_path / str(attempt)] * 4, chunksize=1)
        kept = json.loads((tmp_path / str(attempt) / "secrets.json").read_text())

        assert set(found) == {kept["jwtSecret"]}


@pytest.mark.processes
def test_process_that_is_overtaken_uses_the_secrets_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process starts, and reads its secrets, after this one found no file and wrote its own draft."""
    sync, of_the_other = os.fsync, list[str]()

    def sync_and_be_overtaken(number: int) -> None:
        sync(number)
        if not of_the_other:
            of_the_other.append("not known yet")  # known to the other, which is overtaken by nobody
            with multiprocessing.get_context("fork").Pool(1) as pool:
                of_the_other[0] = pool.apply(_secret_of, [tmp_path])

    monkeypatch.setattr("config.os.fsync", sync_and_be_overtaken)
    assert [_secret_of(tmp_path)] == of_the_other


def _secret_of(data_dir: Path) -> str:
    secret = load_settings(_env_file=None, data_dir=data_dir).jwt_secret
    assert secret is not None
    return secret.get_secret_value()


# Values


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is float])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", "-1", "soon"])
def test_no_amount_is_endless_or_negative(name: str, value: str) -> None:
    """It would only be noticed when somebody's request needs it."""
    with pytest.raises(ConfigurationError, match=name.upper()):
        load_settings(_env_file=None, **{name: value})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"api_port": 0}, "API_PORT"),
        ({"max_body_bytes": 10}, "MAX_BODY_BYTES"),
        ({"sms_timeout_seconds": 4.5}, "SMS_TIMEOUT_SECONDS"),
        ({"public_url": "relay.example"}, "PUBLIC_URL"),
        ({"public_url": "https://"}, "PUBLIC_URL"),
        ({"public_url": "https://relay.example:99999"}, "PUBLIC_URL"),
        ({"public_url": "javascript:alert(1)"}, "PUBLIC_URL"),
        ({"download_allowed_networks": "10.0.0.1/8"}, "DOWNLOAD_ALLOWED_NETWORKS"),
        ({"log_format": "xml"}, "LOG_FORMAT"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(given: dict[str, Any], name: str) -> None:
    """At start, not when it is first needed."""
    with pytest.raises(ConfigurationError, match=f"Setting {name} is not valid"):
        load_settings(_env_file=None, **given)


def test_what_is_blank_is_absent_and_lists_are_split() -> None:
    """As compose files and `.env` files are wont to have it."""
    blank = settings(public_url="", r2_bucket="", jwt_secret="", encryption_keys="", sinch_sms_url="")
    listed = settings(
        download_allowed_networks=" 10.0.0.0/8 ,, fd00::/8,", realtime_allowed_origins="https://a.example,"
    )

    assert (blank.public_url, blank.r2_bucket, blank.jwt_secret, blank.sinch_sms_url) == (None, None, None, None)
    assert [str(network) for network in listed.download_allowed_networks] == ["10.0.0.0/8", "fd00::/8"]
    assert listed.realtime_allowed_origins == ["https://a.example"]


def test_addresses_lose_their_last_slash() -> None:
    """So that paths can be put behind them."""
    assert settings(public_url="https://relay.example/base/").public_url == "https://relay.example/base"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """And what nobody knows in either is left alone."""
    (tmp_path / ".env").write_text("API_PORT=3000\nREALTIME_PORT=3001\nSOMETHING_ELSE=1\n")
    os.environ["API_PORT"] = "4000"
    try:
        read = Settings()
    finally:
        del os.environ["API_PORT"]

    assert (read.api_port, read.realtime_port) == (4000, 3001)


def test_the_broadcasters_limits_are_settings_with_the_same_defaults() -> None:
    """None of them is missing, and a broadcaster that is built without settings allows the same."""
    chosen = settings()

    assert {name: getattr(chosen, f"realtime_{name}") for name in asdict(Limits())} == asdict(Limits())


@pytest.mark.parametrize(
    ("taker", "taken"),
    [
        (Rules, {*signature(Rules).parameters}),
        (BodyLimits, {*signature(BodyLimits).parameters}),
        (limited, {"head_seconds", "body_seconds", "answer_seconds"}),
        (DownloadLimits, {"max_bytes", "total_seconds"}),
        (ElevenLabs, {"url", "timeout"}),
        (Places, {*signature(Places).parameters}),
    ],
    ids=["rules", "bodies", "requests", "downloads", "elevenlabs", "places"],
)
def test_what_takes_a_setting_has_no_default_of_its_own(taker: Callable[..., object], taken: set[str]) -> None:
    """A default that is written twice is two limits as soon as one of them changes."""
    parameters = signature(taker).parameters

    assert {name for name in taken if parameters[name].default is not Parameter.empty} == set()
