"""Configuring an organization's voice AI, and keeping its one webhook at ElevenLabs in order."""

import asyncio
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from pydantic import SecretStr

from actions.agent_secret import begin_rotation, write_rotated_secret
from actions.announcements import voice_ai_webhook
from actions.relay import Relay
from domain.agents import ORGANIZATION_HEADER as ORGANIZATION_HEADER
from domain.audit import Actor, AuditAction
from domain.errors import OutcomeUnknown, ProviderError, ProviderRejected, RelayError, facts_of
from domain.statuses import SetupStatus
from domain.times import later, now
from persistence import audit, outbox, voice_ai_configs
from persistence.models import VoiceAiConfig
from providers.elevenlabs import CreatedWebhook, ElevenLabs, Webhook

WEBHOOK_PATH = "/api/webhook/elevenlabs"
_SETUP_SECONDS = 30
_ANSWER_SECONDS = 3
_RESUMED_AT_ONCE = 16

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class VoiceAiChanges:
    """What to change; a column that is not in `columns` and a secret that is None stay as they are."""

    columns: dict[str, str | None] = field(default_factory=dict, repr=False)
    elevenlabs_api_key: SecretStr | None = None
    sinch_est_key_secret: SecretStr | None = None
    generate_tool_secret: bool = False


async def configure_voice_ai(
    relay: Relay, organization_id: str, changes: VoiceAiChanges, actor: Actor
) -> SecretStr | None:
    """Save the changes and have the webhook set up; return the new tool secret if one was asked for.

    The save is durable before the set-up begins, and does not wait for it longer than a few seconds. The result of the
    set-up is in the configuration and in a `voice_ai_webhook` event; a failure never undoes the save.
    """
    fresh = SecretStr(secrets.token_hex(32)) if changes.generate_tool_secret else None
    wants_webhook, wants_secret = await relay.database.write(
        lambda: _save(relay, organization_id, changes, fresh, actor), of=organization_id
    )
    if wants_webhook or wants_secret:
        work = _follow_up(relay, organization_id, webhook=wants_webhook, secret=wants_secret)
        await relay.background.run(work, _ANSWER_SECONDS)
    return fresh


async def _follow_up(relay: Relay, organization_id: str, *, webhook: bool, secret: bool) -> None:
    if secret:
        await write_rotated_secret(relay, organization_id)
    if webhook:
        await set_up_webhook(relay, organization_id)


def _save(
    relay: Relay, organization_id: str, changes: VoiceAiChanges, fresh: SecretStr | None, actor: Actor
) -> tuple[bool, bool]:
    """Save; return whether the webhook is to be set up, and the secret to be written to ElevenLabs."""
    wants_secret = fresh is not None and begin_rotation(relay, organization_id, fresh, actor)
    values = {**changes.columns, **_sealed(relay, changes)}
    # Which fields were given; what they hold is nobody's business here.
    audit.record(organization_id, AuditAction.CONFIG_CHANGED, actor, details={"fields": sorted(values)})
    config = voice_ai_configs.update(organization_id, values)
    wants_webhook = config.ai_voice_provider == "elevenlabs" and config.elevenlabs_api_key_sealed is not None
    if wants_webhook:
        _want_webhook(config)
    return wants_webhook, wants_secret


def _want_webhook(config: VoiceAiConfig) -> None:
    voice_ai_configs.update(config.organization_id, {"webhook_wanted": config.webhook_wanted + 1})


def _sealed(relay: Relay, changes: VoiceAiChanges) -> dict[str, str]:
    given = {
        "elevenlabs_api_key_sealed": changes.elevenlabs_api_key,
        "sinch_est_key_secret_sealed": changes.sinch_est_key_secret,
    }
    return {
        column: relay.vault.seal(secret.get_secret_value()) for column, secret in given.items() if secret is not None
    }


# The webhook. There is no idempotency key at ElevenLabs, so a lost answer to "create" leaves a webhook whose secret
# nobody knows. We find it by its URL the next time, and replace it only while nothing uses it.


async def set_up_webhook(relay: Relay, organization_id: str) -> None:
    """Find or create our webhook, point the post-call setting at it, and record the result.

    Does it again if a save asked for it meanwhile, and nothing if another process is at it: that one sees the save.
    """
    while config := await relay.database.write(
        lambda: voice_ai_configs.claim_webhook_setup(organization_id, later(_SETUP_SECONDS)), of=organization_id
    ):
        try:
            outcome = await _attempt(relay, config)
        except asyncio.CancelledError:
            # This process stops; the next one need not wait until the claim has ended.
            await relay.database.write(partial(_release, organization_id), of=organization_id)
            raise
        await relay.database.write(partial(_finish, config, outcome), of=organization_id)


async def ensure_webhook(relay: Relay, organization_id: str) -> None:
    """Have the webhook set up anew, and wait for the result, which is in the configuration."""
    await relay.database.write(lambda: _want_webhook(voice_ai_configs.update(organization_id, {})), of=organization_id)
    await set_up_webhook(relay, organization_id)


async def resume_webhook_setups(relay: Relay) -> int:
    """Set up webhooks whose set-up was cut off, by a restart for instance; return how many.

    A few at the same time: one workspace that does not answer must not keep the others waiting.
    """
    waiting = (await relay.database.read(voice_ai_configs.wanting_setup))[:_RESUMED_AT_ONCE]
    outcomes = await asyncio.gather(*(set_up_webhook(relay, one) for one in waiting), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            log.error("webhook.resume_failed", **facts_of(outcome))
    return len(waiting)


async def _attempt(relay: Relay, config: VoiceAiConfig) -> dict[str, Any]:
    """Set the webhook up for the configuration as it was claimed; return the columns that tell the result."""
    try:
        async with asyncio.timeout(_SETUP_SECONDS - 1):
            warning = await _set_up(relay, config)
    except (RelayError, TimeoutError) as error:
        reason = str(error) or "ElevenLabs did not answer in time"
        log.warning("webhook.setup_failed", organization_id=config.organization_id, reason=reason)
        return _failed(reason)
    except Exception as error:  # it would otherwise stay pending, and be tried for ever
        log.error("webhook.setup_fault", organization_id=config.organization_id, **facts_of(error))
        return _failed(f"The relay failed ({type(error).__name__}); its log says where")
    if warning:
        log.warning("webhook.setup_incomplete", organization_id=config.organization_id, reason=warning)
    return {"webhook_status": SetupStatus.CONFIGURED.value, "webhook_error": None, "webhook_warning": warning}


def _release(organization_id: str) -> None:
    voice_ai_configs.update(organization_id, {"webhook_claimed_until": None})


def _failed(reason: str) -> dict[str, Any]:
    return {"webhook_status": SetupStatus.FAILED.value, "webhook_error": reason, "webhook_warning": None}


def _finish(config: VoiceAiConfig, outcome: dict[str, Any]) -> None:
    """Record the result, release the claim and tell the listeners, in a unit; a later save keeps the status pending."""
    organization_id = config.organization_id
    finished = {"webhook_done": config.webhook_wanted, "webhook_checked_at": now(), "webhook_claimed_until": None}
    stored = voice_ai_configs.update(organization_id, outcome | finished)
    if stored.webhook_wanted == stored.webhook_done:
        outbox.append(organization_id, [voice_ai_webhook(stored)])


async def _set_up(relay: Relay, config: VoiceAiConfig) -> str | None:
    """Set the webhook up; return what the owner should know although it works."""
    if relay.rules.public_url is None:
        raise RelayError("Set PUBLIC_URL, so that ElevenLabs can be told where to send finished calls")
    if config.elevenlabs_api_key_sealed is None:
        return None
    elevenlabs = relay.elevenlabs(relay.vault.open(config.elevenlabs_api_key_sealed))
    url = relay.rules.public_url + WEBHOOK_PATH
    webhook_id = await _usable_webhook(relay, config, elevenlabs, url)
    has_transcripts = await elevenlabs.point_post_call_at(webhook_id)
    await _ask_for_retries(elevenlabs, webhook_id, config.organization_id)
    return None if has_transcripts else _WITHOUT_TRANSCRIPTS


async def _usable_webhook(relay: Relay, config: VoiceAiConfig, elevenlabs: ElevenLabs, url: str) -> str:
    found = await elevenlabs.find_webhook(url)
    if found is not None and found.id == config.webhook_id and config.webhook_secret_sealed:
        return found.id
    if found is not None:
        await _remove_unusable(elevenlabs, found)
    created = await elevenlabs.create_webhook(_NAME, url, _headers(config.organization_id))
    await _remember(relay, config.organization_id, url, created)
    if created.secret is None:
        raise OutcomeUnknown("elevenlabs", "made a webhook without showing its secret; save again to have it replaced")
    return created.id


_NAME = "Tether Relay post-call"
_WITHOUT_TRANSCRIPTS = (
    "Transcripts are switched off in the ElevenLabs workspace (exclude_transcript), so calls arrive without one"
)


def _headers(organization_id: str) -> dict[str, str]:
    return {ORGANIZATION_HEADER: organization_id}


async def _remove_unusable(elevenlabs: ElevenLabs, found: Webhook) -> None:
    if found.usages:
        raise ProviderRejected(
            "elevenlabs",
            "a webhook for our address is in use but its secret is not known here; "
            "remove it at ElevenLabs and save again",
        )
    await elevenlabs.delete_webhook(found.id)


async def _remember(relay: Relay, organization_id: str, url: str, created: CreatedWebhook) -> None:
    sealed = relay.vault.seal(created.secret.get_secret_value()) if created.secret else None
    columns = {"webhook_id": created.id, "webhook_url": url, "webhook_secret_sealed": sealed}
    await relay.database.write(lambda: voice_ai_configs.update(organization_id, columns))


async def _ask_for_retries(elevenlabs: ElevenLabs, webhook_id: str, organization_id: str) -> None:
    # Without retries a finished call that meets a restart is lost, but the webhook works all the same.
    try:
        await elevenlabs.enable_retries(webhook_id, _NAME, _headers(organization_id))
    except ProviderError as error:
        log.warning("webhook.retries_not_enabled", webhook_id=webhook_id, reason=str(error))
