"""What every action works with: the database, the outside world, and the rules that were set."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from actions.background import Background
from actions.heavy_work import HeavyWork
from actions.new_events import NewEvents
from actions.places import Places
from actions.quotas import Quotas
from actions.rates import Rates
from actions.turns import Turns
from domain.agents import AgentContract
from domain.messages import TextProvider
from domain.repetition import Repetition
from keyring.passwords import Passwords
from keyring.tokens import Tokens
from keyring.vault import Vault
from persistence.database import Database
from providers.download import Downloader
from providers.elevenlabs import ElevenLabs
from providers.storage.keys import RecordingStore


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings actions heed; durations in seconds, sizes in bytes. Their defaults stand in `config.py` alone."""

    tool_replay: float
    tool_secret_overlap: float
    tool_secret_rotation: float
    sms_timeout: float
    max_body_bytes: int
    max_document_bytes: int
    max_document_values: int
    held_body_bytes: int
    held_unverified_body_bytes: int
    max_recording_bytes: int
    version: str
    public_url: str | None
    webhook_tolerance: float
    webhook_organizations_tried: int
    realtime_url: str
    allowed_origins: frozenset[str]
    has_management_port: bool
    serves_pages: bool
    token_lifetime: float
    session_lifetime: float
    api_key_overlap: float
    audit_reads: bool
    sign_in_attempts_per_account: int
    sign_in_attempts_per_account_and_address: int
    sign_in_attempts_per_address: int
    sign_in_window: float


@dataclass(frozen=True, slots=True)
class Relay:
    """Everything the product does is done with these; built once, at the front door.

    `text_provider` makes the client of an SMS provider by its name and opened credentials, `elevenlabs` the client for
    an API key, `agent_contract` reads what the contract offers voice agents. `refusals` counts, by vendor, what came
    with a signature that proves nothing. `repetition` says when a log line about what outsiders repeat is due.
    `noted_keys` says when the use of an API key was last noted by this process, `background` holds what no request
    waits for, `new_events` the requests that wait for an event.
    """

    database: Database
    vault: Vault
    tokens: Tokens
    store: RecordingStore
    downloader: Downloader
    text_provider: Callable[[str, dict[str, Any]], TextProvider]
    elevenlabs: Callable[[SecretStr], ElevenLabs]
    quotas: Quotas
    rules: Rules
    downloads: Places
    agent_contract: Callable[[], AgentContract] = AgentContract
    heavy_work: HeavyWork = field(default_factory=HeavyWork)
    turns: Turns = field(default_factory=Turns)
    passwords: Passwords = field(default_factory=Passwords)
    rates: Rates = field(default_factory=Rates)
    background: Background = field(default_factory=Background)
    new_events: NewEvents = field(default_factory=NewEvents)
    refusals: Counter[str] = field(default_factory=Counter)
    repetition: Repetition = field(default_factory=Repetition)
    noted_keys: dict[str, float] = field(default_factory=dict)
