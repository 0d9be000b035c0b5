"""Settings: read once, from the environment and `.env`, by the doors only (`app.py`, `manage.py`).

Every setting is listed with its default and its reason in `.env.example`. Secrets hide their value in `repr`.
"""

import json
import os
import secrets
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain import origins
from domain.errors import ConfigurationError
from domain.quotas import MAX_BYTES, MAX_COUNT
from domain.replay import MAX_REPLAY_SECONDS
from realtime.limits import Limits

_LAST_PORT = 65_535
Port = Annotated[int, Field(ge=1, le=_LAST_PORT)]
# No setting is endless, whatever unit it has: beyond this, moments would leave the calendar.
Amount = Annotated[float, Field(ge=0, le=10_000_000)]
Networks = Annotated[list[IPv4Network | IPv6Network], NoDecode]
Seconds = Annotated[Amount, Field(gt=0)]


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address such as https://relay.example")
    if parts.port == 0 or parts.query or parts.fragment:
        raise ValueError("give an address without a query, on a port above 0")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]


# What one broadcaster allows is written with the broadcaster.
_BROADCASTER = Limits()


class Settings(BaseSettings):
    """Everything that can be set from outside; names are the environment variables in lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    data_dir: Path = Path("var")
    database_url: str = ""
    migrate_at_start: Literal["on", "off"] = "off"

    api_host: str = "127.0.0.1"
    api_port: Port = 2212
    realtime_host: str = "127.0.0.1"
    realtime_port: Port = 2213
    management_host: str = "127.0.0.1"
    management_port: Port | None = None
    realtime_management_port: Port | None = None
    pages: Literal["on", "off"] = "on"
    realtime_public_url: Annotated[str | None, Field(pattern=r"^wss?://")] = None
    public_url: BaseUrl | None = None
    trusted_proxies: Networks = [IPv4Network("127.0.0.1/32"), IPv6Network("::1/128")]

    jwt_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    jwt_previous_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    jwt_algorithm: Literal["HS256", "RS256"] = "HS256"
    jwt_private_key_file: Path | None = None
    jwt_public_key_files: Annotated[list[Path], NoDecode] = []
    encryption_keys: SecretStr | None = None

    token_lifetime_minutes: Annotated[Amount, Field(ge=1)] = 12 * 60
    session_lifetime_days: Annotated[float, Field(gt=0, le=3650)] = 30
    api_key_overlap_minutes: Amount = 0
    sign_in_attempts_per_account_and_address: Annotated[int, Field(ge=1)] = 10
    sign_in_attempts_per_account: Annotated[int, Field(ge=1)] = 10
    sign_in_attempts_per_address: Annotated[int, Field(ge=1)] = 50
    sign_in_window_minutes: Annotated[Amount, Field(gt=0)] = 15

    audit_reads: Literal["on", "off"] = "off"

    requests_per_minute_per_address: Annotated[int, Field(ge=0)] = 24_000
    requests_per_minute_per_caller: Annotated[int, Field(ge=0)] = 12_000
    org_recording_bytes: Annotated[int, Field(ge=0, le=MAX_BYTES)] = 1 << 40
    org_requests_per_minute: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 60_000
    org_sockets: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 10_000
    request_counters: Literal["memory", "database"] = "memory"

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    max_body_bytes: Annotated[int, Field(ge=1024)] = 48 * 1024 * 1024
    max_document_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    max_document_values: Annotated[int, Field(ge=100)] = 50_000
    request_head_seconds: Seconds = 10
    request_body_seconds: Seconds = 20
    answer_seconds: Seconds = 20
    max_connections: Annotated[int, Field(ge=1)] = 8192
    max_connections_per_address: Annotated[int, Field(ge=1)] = 1024
    held_body_bytes: Annotated[int, Field(ge=1024)] = 192 * 1024 * 1024
    held_unverified_body_bytes: Annotated[int, Field(ge=1024)] = 144 * 1024 * 1024
    max_recording_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024 * 1024
    tool_replay_seconds: Annotated[float, Field(ge=0, le=MAX_REPLAY_SECONDS)] = 30
    tool_secret_overlap_minutes: Amount = 60
    tool_secret_rotation_days: Annotated[float, Field(ge=0, le=3650)] = 0
    webhook_tolerance_minutes: Annotated[Amount, Field(gt=0)] = 30
    webhook_organizations_tried: Annotated[int, Field(ge=1, le=1000)] = 8
    unnamed_deliveries_per_minute_per_address: Annotated[int, Field(ge=0)] = 120
    sms_timeout_seconds: Annotated[float, Field(gt=0, le=4)] = 4

    download_timeout_seconds: Seconds = 60
    download_wait_seconds: Seconds = 10
    max_downloads: Annotated[int, Field(ge=1)] = 32
    max_downloads_per_organization: Annotated[int, Field(ge=1)] = 8
    download_allowed_networks: Networks = []

    r2_endpoint_url: BaseUrl | None = None
    r2_bucket: str | None = None
    r2_access_key_id: str | None = None
    r2_secret_access_key: SecretStr | None = None
    r2_region: str = "auto"

    elevenlabs_url: BaseUrl = "https://api.elevenlabs.io"
    elevenlabs_timeout_seconds: Seconds = 10
    twilio_url: BaseUrl = "https://api.twilio.com"
    textgrid_url: BaseUrl = "https://api.textgrid.com"
    sinch_auth_url: BaseUrl = "https://auth.sinch.com"
    sinch_sms_url: BaseUrl | None = None

    event_retention_hours: Annotated[Amount, Field(gt=0)] = 24
    realtime_connections: Annotated[int, Field(ge=1)] = _BROADCASTER.connections
    realtime_per_organization: Annotated[int, Field(ge=1)] = _BROADCASTER.per_organization
    realtime_per_address: Annotated[int, Field(ge=1)] = _BROADCASTER.per_address
    realtime_unauthenticated: Annotated[int, Field(ge=1)] = _BROADCASTER.unauthenticated
    realtime_unauthenticated_per_address: Annotated[int, Field(ge=1)] = _BROADCASTER.unauthenticated_per_address
    realtime_auth_seconds: Seconds = _BROADCASTER.auth_seconds
    realtime_message_bytes: Annotated[int, Field(ge=5120)] = _BROADCASTER.message_bytes
    realtime_messages_per_second: Annotated[Amount, Field(gt=0)] = _BROADCASTER.messages_per_second
    realtime_message_burst: Annotated[Amount, Field(ge=1)] = _BROADCASTER.message_burst
    realtime_unsent_bytes: Annotated[int, Field(ge=16 * 1024)] = _BROADCASTER.unsent_bytes
    realtime_stall_seconds: Seconds = _BROADCASTER.stall_seconds
    realtime_slowest_bytes_per_second: Annotated[int, Field(ge=256)] = _BROADCASTER.slowest_bytes_per_second
    realtime_heartbeat_seconds: Seconds = _BROADCASTER.heartbeat_seconds
    realtime_revocation_seconds: Seconds = _BROADCASTER.revocation_seconds
    realtime_jitter_seconds: Amount = _BROADCASTER.jitter_seconds
    realtime_drain_seconds: Annotated[float, Field(ge=0, le=8)] = _BROADCASTER.drain_seconds
    realtime_allowed_origins: Annotated[list[str], NoDecode] = []

    @field_validator(
        "trusted_proxies",
        "download_allowed_networks",
        "realtime_allowed_origins",
        "jwt_public_key_files",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator(
        "public_url",
        "realtime_public_url",
        "r2_endpoint_url",
        "r2_bucket",
        "r2_access_key_id",
        "r2_secret_access_key",
        "sinch_sms_url",
        "management_port",
        "realtime_management_port",
        "jwt_secret",
        "jwt_previous_secret",
        "jwt_private_key_file",
        "encryption_keys",
        mode="before",
    )
    @classmethod
    def _blank_is_absent(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def resolved_database_url(self) -> str:
        """`database_url`, or the embedded database inside `data_dir`."""
        return self.database_url or f"sqlite:///{self.data_dir / 'relay.db'}"

    @property
    def secrets_file(self) -> Path:
        """Where an embedded installation keeps the secrets that are not set otherwise."""
        return self.data_dir / "secrets.json"

    @property
    def local_url(self) -> str:
        """Where the API is reached from this machine."""
        return f"http://{_reachable(self.api_host)}:{self.api_port}"

    @property
    def local_realtime_url(self) -> str:
        """Where the broadcaster is reached from this machine."""
        return f"ws://{_reachable(self.realtime_host)}:{self.realtime_port}/v1"

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Web origins whose pages may use the API and the socket: the relay's own, and those that are listed."""
        own = [self.local_url, self.local_realtime_url, self.public_url or "", self.realtime_public_url or ""]
        local = [*origins.local_origins(self.api_port), *origins.local_origins(self.realtime_port)]
        return origins.normalised([*(one for one in own if one), *local, *self.realtime_allowed_origins])

    @property
    def broadcaster_management_port(self) -> int | None:
        """The broadcaster's own port for health and metrics: its setting, or the one above the API's."""
        if self.realtime_management_port is not None or self.management_port is None:
            return self.realtime_management_port
        return self.management_port + 1

    @property
    def health_urls(self) -> tuple[str, str]:
        """Where the API and the broadcaster say that they are alive, from this machine."""
        return (
            f"{self._probed(self.management_port, self.api_host, self.api_port)}/healthz",
            f"{self._probed(self.broadcaster_management_port, self.realtime_host, self.realtime_port)}/healthz",
        )

    def _probed(self, management_port: int | None, host: str, port: int) -> str:
        if management_port is not None:
            host, port = self.management_host, management_port
        return f"http://{_reachable(host)}:{port}"

    @property
    def is_realtime_https(self) -> bool:
        """Whether the outside reaches the broadcaster over TLS; without an address of its own, as it does the API."""
        return (self.realtime_public_url or self.public_url or "").lower().startswith(("wss:", "https:"))

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the embedded SQLite file."""
        return self.resolved_database_url.startswith("sqlite:")


def _reachable(host: str) -> str:
    # One can listen on every address but not connect to it, and IPv6 needs brackets in a URL.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def load_settings(**overrides: object) -> Settings:
    """Read the settings; an embedded installation gets secrets of its own on first use, kept in `data_dir`.

    Raises:
        ConfigurationError: when a setting is bad, a needed secret is missing, or `data_dir` cannot be written.
    """
    settings = _read(**overrides)
    return settings if _has_secrets(settings) else _with_local_secrets(settings)


def existing_settings(**overrides: object) -> Settings:
    """Read the settings without writing anything; secrets that do not exist are None.

    Raises:
        ConfigurationError: if a setting is bad, or secrets.json cannot be read.
    """
    settings = _read(**overrides)
    if _has_secrets(settings) or not (settings.is_embedded and settings.secrets_file.exists()):
        return settings
    return _with_local_secrets(settings)


def _read(**overrides: object) -> Settings:
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name, problem = str(first["loc"][0]).upper(), first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"Setting {name} is not valid: {problem}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("The file .env is not UTF-8 text.") from error
    _check_object_storage(settings)
    _check_ports(settings)
    return settings


def _check_object_storage(settings: Settings) -> None:
    needed = {
        "R2_ENDPOINT_URL": settings.r2_endpoint_url,
        "R2_BUCKET": settings.r2_bucket,
        "R2_ACCESS_KEY_ID": settings.r2_access_key_id,
        "R2_SECRET_ACCESS_KEY": settings.r2_secret_access_key,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing and len(missing) < len(needed):
        raise ConfigurationError(
            f"Set {' and '.join(missing)} too, or none of the R2 settings to keep recordings on disk."
        )


def _check_ports(settings: Settings) -> None:
    ports = {
        "API_PORT": (settings.api_host, settings.api_port),
        "REALTIME_PORT": (settings.realtime_host, settings.realtime_port),
        "MANAGEMENT_PORT": (settings.management_host, settings.management_port),
        "REALTIME_MANAGEMENT_PORT": (settings.management_host, settings.broadcaster_management_port),
    }
    if (settings.broadcaster_management_port or 0) > _LAST_PORT:
        raise ConfigurationError("Set REALTIME_MANAGEMENT_PORT: there is no port above MANAGEMENT_PORT.")
    taken: dict[tuple[str, int], str] = {}
    for name, (host, port) in ports.items():
        if port is not None and taken.setdefault((host, port), name) != name:
            raise ConfigurationError(f"Set {name} to another port than {taken[host, port]}.")


def _has_secrets(settings: Settings) -> bool:
    signs = settings.jwt_secret is not None or settings.jwt_algorithm == "RS256"
    return signs and settings.encryption_keys is not None


def _with_local_secrets(settings: Settings) -> Settings:
    if not settings.is_embedded:
        raise ConfigurationError(
            "Set JWT_SECRET and ENCRYPTION_KEYS: every process on a shared database needs the same ones."
        )
    kept = _local_secrets(settings.data_dir, settings.secrets_file)
    return settings.model_copy(
        update={
            "jwt_secret": settings.jwt_secret or SecretStr(kept["jwtSecret"]),
            "encryption_keys": settings.encryption_keys or SecretStr(kept["encryptionKeys"]),
        }
    )


def kept_secrets(settings: Settings) -> dict[str, str]:
    """Return what secrets.json holds if a secret in use comes from there, otherwise nothing."""
    if not settings.is_embedded or not settings.secrets_file.exists():
        return {}
    kept = _local_secrets(settings.data_dir, settings.secrets_file)
    in_use = (settings.jwt_secret, settings.encryption_keys)
    return (
        kept if {kept["jwtSecret"], kept["encryptionKeys"]} & {one.get_secret_value() for one in in_use if one} else {}
    )


def change_kept_keys(settings: Settings, change: Callable[[list[str]], list[str]]) -> list[str]:
    """Change the encryption keys that secrets.json keeps, newest first; return those it keeps now.

    Raises:
        ConfigurationError: if the keys in use are set elsewhere.
    """
    kept = kept_secrets(settings)
    ring = settings.encryption_keys.get_secret_value() if settings.encryption_keys else ""
    if kept.get("encryptionKeys") != ring:
        raise ConfigurationError("The keys in use come from ENCRYPTION_KEYS: change them where that is set.")
    changed = change([key.strip() for key in ring.split(",")])
    _draft(settings.secrets_file, kept | {"encryptionKeys": ",".join(changed)}).replace(settings.secrets_file)
    return changed


def _local_secrets(data_dir: Path, path: Path) -> dict[str, str]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, {"jwtSecret": secrets.token_hex(32), "encryptionKeys": Fernet.generate_key().decode()})
        kept = json.loads(path.read_text())
        return {"jwtSecret": str(kept["jwtSecret"]), "encryptionKeys": str(kept["encryptionKeys"])}
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {data_dir} cannot be used: {error.strerror}. Set DATA_DIR to a folder you can write to."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} does not hold the secrets it was made with; restore it from a backup."
        ) from error


def _write_once(path: Path, content: dict[str, str]) -> None:
    # Two processes may start at once: each writes a whole file of its own, and the first link wins.
    draft = _draft(path, content)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _draft(path: Path, content: dict[str, str]) -> Path:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.touch(mode=0o600)
    with draft.open("w") as file:
        file.write(json.dumps(content))
        file.flush()
        os.fsync(file.fileno())
    return draft
