"""How an organization's voice AI is set up."""

from collections.abc import Mapping
from typing import Any

from domain.times import now
from persistence.models import VoiceAiConfig


def get(organization_id: str) -> VoiceAiConfig | None:
    """Return the organization's configuration."""
    return VoiceAiConfig.get_or_none(VoiceAiConfig.organization == organization_id)


def with_webhook_secret(limit: int, organization_id: str | None = None) -> list[VoiceAiConfig]:
    """Return at most `limit` configurations that have a webhook secret, or that of one organization."""
    config = VoiceAiConfig
    query = config.select(config.organization, config.webhook_secret_sealed)
    query = query.where(config.webhook_secret_sealed.is_null(False))
    if organization_id is not None:
        query = query.where(config.organization == organization_id)
    return list(query.order_by(config.organization).limit(limit))


def update(organization_id: str, values: Mapping[str, object]) -> VoiceAiConfig:
    """Change the given columns, creating the configuration if there is none, and return it."""
    VoiceAiConfig.insert(organization=organization_id).on_conflict_ignore().execute()
    changes = {**values, "updated_at": now()}
    VoiceAiConfig.update(changes).where(VoiceAiConfig.organization == organization_id).execute()
    return VoiceAiConfig.get(VoiceAiConfig.organization == organization_id)


def claim_webhook_setup(organization_id: str, until: str) -> VoiceAiConfig | None:
    """Claim the set-up of the webhook until that timestamp.

    Returns:
        the configuration to set up, or None if nothing is wanted or another process holds the claim.
    """
    config = VoiceAiConfig
    free = config.webhook_claimed_until.is_null() | (config.webhook_claimed_until < now())
    wanted = config.webhook_wanted > config.webhook_done
    mine = config.organization == organization_id
    if not config.update(webhook_claimed_until=until).where(mine, free, wanted).execute():
        return None
    return get(organization_id)


def wanting_setup() -> list[str]:
    """Return the organizations whose webhook is to be set up and whose set-up nobody holds."""
    config = VoiceAiConfig
    free = config.webhook_claimed_until.is_null() | (config.webhook_claimed_until < now())
    query: Any = config.select(config.organization).where(config.webhook_wanted > config.webhook_done, free)
    return [row[0] for row in query.tuples()]
