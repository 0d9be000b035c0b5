"""The front door: builds the relay from its settings, and the application around it. Importing it does nothing."""

import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client import CollectorRegistry, Gauge, Info
from pydantic import ValidationError
from starlette.types import ASGIApp

import handlers
from actions.authenticate import authenticate
from actions.places import Places
from actions.quotas import Allowance, Quotas
from actions.rates import Rates, in_database, in_memory
from actions.relay import Relay, Rules
from config import Settings
from domain.addresses import Proxies
from domain.agents import AgentContract
from domain.errors import ConfigurationError, InvalidRequest
from domain.messages import TextProvider
from domain.origins import HTTPS_ONLY
from handlers.client_addresses import ClientAddresses
from handlers.connections import Connections
from handlers.cross_origin import CrossOrigin
from handlers.health import Health
from handlers.observation import Observation, Refusals
from handlers.own_paths import Endpoint, OwnPaths, fixed, nowhere
from handlers.page_headers import PageHeaders
from handlers.swagger_pages import swagger_pages
from keyring.tokens import Key, Tokens, private_key, public_key, shared_key
from keyring.vault import Vault
from openapi import agent_tools, document
from openapi.document import Contract
from openapi.operations import OPERATIONS
from openapi.serving import assembly
from openapi.serving.assembly import documents_of
from openapi.serving.bodies import BodyLimits
from openapi.serving.registry import find_handlers
from persistence.database import Database, open_database
from providers.console import Console
from providers.download import Downloader, DownloadLimits
from providers.elevenlabs import ElevenLabs
from providers.sinch import AccessTokens, Sinch
from providers.sinch import read_credentials as read_sinch_credentials
from providers.storage.disk import DiskStore
from providers.storage.keys import RecordingStore
from providers.storage.s3 import connect_s3
from providers.textgrid import TextGrid, TextGridCredentials
from providers.twilio import Twilio, TwilioCredentials
from realtime import pages
from version import VERSION

_HTTPS_ONLY = (b"strict-transport-security", HTTPS_ONLY.encode())

TextProviders = dict[str, Callable[[dict[str, Any]], TextProvider]]


@contextlib.asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Relay]:
    """Build everything the actions work with, and let go of it at the end.

    Raises:
        ConfigurationError: when the database cannot be opened or a secret is missing.
    """
    database = open_database(settings.resolved_database_url)
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            relay = _relay(settings, database, http)
            try:
                yield relay
            finally:
                await relay.background.close()
    finally:
        database.close()


@dataclass(frozen=True, slots=True)
class Apps:
    """What is served: to everybody, and on the management port if there is one."""

    public: ASGIApp
    management: ASGIApp


def create_app(relay: Relay, contract: Contract | None = None) -> ASGIApp:
    """Build the application: the contract's operations, and the server's own paths beside them.

    `contract` is the loaded contract, if the caller has it; otherwise it is read from its files.
    """
    return create_apps(relay, contract).public


def create_apps(
    relay: Relay,
    contract: Contract | None = None,
    connections: Connections | None = None,
    proxies: Proxies | None = None,
) -> Apps:
    """Build the application, and the one that answers health, readiness and metrics alone.

    `connections` are those of the server, whose figures stand among the metrics; `proxies` are trusted to name the
    client of a request.
    """
    registry = CollectorRegistry()
    if connections is not None:
        Gauge("relay_connections", "Open connections.", registry=registry).set_function(connections.count)
        registry.register(
            Refusals(connections.refused, "relay_connections_refused", "Connections beyond a limit.", "limit")
        )
    registry.register(Refusals(relay.refusals))
    Info("relay_build", "What runs here.", registry=registry).info({"version": VERSION})
    health, rules = Health(relay, registry), relay.rules
    probes: dict[str, Endpoint] = {"/healthz": health.healthz, "/readyz": health.readyz, "/metrics": health.metrics}
    shown = pages.load(rules.realtime_url, for_people=rules.serves_pages)
    loaded = contract or document.load()
    own = {path: fixed("application/json", body) for path, body in documents_of(loaded, OPERATIONS, VERSION).items()}
    own |= {path: fixed(*page) for path, page in shown.items()} | ({} if rules.has_management_port else probes)
    own |= swagger_pages() if rules.serves_pages else {}
    is_https = (rules.public_url or "").lower().startswith("https:")
    public = assembly.build(
        loaded,
        relay,
        partial(authenticate, relay),
        bindings=OPERATIONS,
        handlers=find_handlers(handlers, OPERATIONS),
        limits=relay.rates,
        bodies=body_limits(rules),
        heavy_work=relay.heavy_work,
        client_addresses=None if proxies is None else partial(ClientAddresses, proxies=proxies),
        observation=partial(Observation, registry=registry, headers=[_HTTPS_ONLY] if is_https else []),
        cross_origin=partial(CrossOrigin, allowed=rules.allowed_origins),
        page_headers=partial(PageHeaders, realtime_url=rules.realtime_url),
        own_paths=partial(OwnPaths, pages=own),
    )
    registry.register(Refusals(relay.quotas.refused, "relay_quota_refused", "Refused because of a quota.", "quota"))
    return Apps(public, OwnPaths(nowhere, probes))


@functools.cache
def _agent_contract() -> AgentContract:
    return agent_tools.read(document.load())


def _relay(settings: Settings, database: Database, http: httpx.AsyncClient) -> Relay:
    if settings.encryption_keys is None:
        raise ConfigurationError("Set ENCRYPTION_KEYS.")
    providers = _text_providers(settings, http)
    shared = in_database(database) if settings.request_counters == "database" else None
    quotas = Quotas(
        database,
        Allowance(settings.org_recording_bytes, settings.org_requests_per_minute, settings.org_sockets),
        shared,
    )
    return Relay(
        database=database,
        vault=Vault(settings.encryption_keys),
        tokens=Tokens(_signing_keys(settings)),
        store=open_store(settings),
        downloader=_downloader(settings),
        downloads=Places(
            settings.max_downloads, settings.max_downloads_per_organization, settings.download_wait_seconds
        ),
        text_provider=partial(_text_provider, providers),
        elevenlabs=lambda key: ElevenLabs(http, settings.elevenlabs_url, key, settings.elevenlabs_timeout_seconds),
        rates=Rates(
            settings.requests_per_minute_per_address,
            settings.requests_per_minute_per_caller,
            shared or in_memory(),
            settings.unnamed_deliveries_per_minute_per_address,
            quotas,
        ),
        quotas=quotas,
        agent_contract=_agent_contract,
        rules=rules_of(settings),
    )


def rules_of(settings: Settings) -> Rules:
    """Return what actions heed of the settings."""
    return Rules(
        tool_replay=settings.tool_replay_seconds,
        tool_secret_overlap=settings.tool_secret_overlap_minutes * 60,
        tool_secret_rotation=settings.tool_secret_rotation_days * 86_400,
        sms_timeout=settings.sms_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
        max_document_bytes=settings.max_document_bytes,
        max_document_values=settings.max_document_values,
        held_body_bytes=settings.held_body_bytes,
        held_unverified_body_bytes=settings.held_unverified_body_bytes,
        max_recording_bytes=settings.max_recording_bytes,
        version=VERSION,
        public_url=settings.public_url,
        webhook_tolerance=settings.webhook_tolerance_minutes * 60,
        webhook_organizations_tried=settings.webhook_organizations_tried,
        allowed_origins=settings.allowed_origins,
        has_management_port=settings.management_port is not None,
        serves_pages=settings.pages == "on",
        realtime_url=settings.realtime_public_url or settings.local_realtime_url,
        token_lifetime=settings.token_lifetime_minutes * 60,
        session_lifetime=settings.session_lifetime_days * 86_400,
        api_key_overlap=settings.api_key_overlap_minutes * 60,
        audit_reads=settings.audit_reads == "on",
        sign_in_attempts_per_account_and_address=settings.sign_in_attempts_per_account_and_address,
        sign_in_attempts_per_account=settings.sign_in_attempts_per_account,
        sign_in_attempts_per_address=settings.sign_in_attempts_per_address,
        sign_in_window=settings.sign_in_window_minutes * 60,
    )


def body_limits(rules: Rules) -> BodyLimits:
    """Return how much of bodies is taken."""
    return BodyLimits(
        body_bytes=rules.max_body_bytes,
        document_bytes=rules.max_document_bytes,
        document_values=rules.max_document_values,
        held_bytes=rules.held_body_bytes,
        held_unverified_bytes=rules.held_unverified_body_bytes,
    )


def _signing_keys(settings: Settings) -> list[Key]:
    if settings.jwt_algorithm == "RS256":
        private = settings.jwt_private_key_file
        keys = [private_key(_content(private))] if private else []
        keys += [public_key(_content(path)) for path in settings.jwt_public_key_files]
    else:
        secrets = (settings.jwt_secret, settings.jwt_previous_secret)
        keys = [shared_key(secret) for secret in secrets if secret is not None]
    if not keys:
        raise ConfigurationError("Set JWT_SECRET, or with JWT_ALGORITHM=RS256 JWT_PRIVATE_KEY_FILE.")
    return keys


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read: {error.strerror}.") from error


def _text_providers(settings: Settings, http: httpx.AsyncClient) -> TextProviders:
    tokens = AccessTokens()
    return {
        "console": lambda _: Console(),
        "twilio": lambda given: Twilio(http, settings.twilio_url, TwilioCredentials.model_validate(given)),
        "textgrid": lambda given: TextGrid(http, settings.textgrid_url, TextGridCredentials.model_validate(given)),
        "sinch": lambda given: Sinch(
            http,
            read_sinch_credentials(given),
            auth_url=settings.sinch_auth_url,
            sms_url=settings.sinch_sms_url,
            tokens=tokens,
        ),
    }


def _text_provider(providers: TextProviders, name: str, credentials: dict[str, Any]) -> TextProvider:
    if name not in providers:
        raise InvalidRequest(f"There is no SMS provider {name!r}; choose one of {', '.join(sorted(providers))}")
    try:
        return providers[name](credentials)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'credentials'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise InvalidRequest(f"These are not credentials for {name}: {problems}") from None


def _downloader(settings: Settings) -> Downloader:
    limits = DownloadLimits(settings.max_recording_bytes, total_seconds=settings.download_timeout_seconds)
    addresses = (settings.public_url, settings.realtime_public_url)
    own_names = {host for address in addresses if address and (host := urlsplit(address).hostname)}
    return Downloader(limits, allowed_networks=settings.download_allowed_networks, own_names=sorted(own_names))


def open_store(settings: Settings) -> RecordingStore:
    """Return the place where recordings are kept."""
    secret = settings.r2_secret_access_key
    if settings.r2_bucket and settings.r2_endpoint_url and settings.r2_access_key_id and secret:
        return connect_s3(
            endpoint_url=settings.r2_endpoint_url,
            bucket=settings.r2_bucket,
            access_key_id=settings.r2_access_key_id,
            secret_access_key=secret.get_secret_value(),
            region=settings.r2_region,
        )
    base_url = settings.public_url or settings.local_url
    return DiskStore(settings.data_dir / "recordings", link_secret=_link_secret(settings), base_url=base_url)


def _link_secret(settings: Settings) -> bytes:
    # Links are signed with a key of their own, so that a signature can never pass for a token.
    newest = settings.encryption_keys.get_secret_value().partition(",")[0] if settings.encryption_keys else ""
    return hashlib.sha256(b"recording links\0" + newest.strip().encode()).digest()
