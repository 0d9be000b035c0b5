"""How an organization's voice AI is set up."""

from typing import Any

from domain.times import now
from persistence.models import VoiceAiConfig
from persistence.statements import Given, Statement


def get(organization_id: str) -> VoiceAiConfig | None:
    """Return the organization's configuration."""
    return VoiceAiConfig.get_or_none(VoiceAiConfig.organization == organization_id)


def by_tool_secret(digest: str) -> str | None:
    """Return the organization whose tool secret has this SHA-256; the previous secret counts while it lasts."""
    organization_id: str | None = _BY_TOOL_SECRET.value(digest=digest, now=now())
    return organization_id


def with_webhook_secret(limit: int, organization_id: str | None = None) -> list[VoiceAiConfig]:
    """Return at most `limit` configurations that have a webhook secret, or that of one organization."""
    config = VoiceAiConfig
    query = config.select(config.organization, config.webhook_secret_sealed)
    query = query.where(config.webhook_secret_sealed.is_null(False))
    if organization_id is not None:
        query = query.where(config.organization == organization_id)
    return list(query.order_by(config.organization).limit(limit))


def update(organization_id: str, values: dict[str, Any]) -> VoiceAiConfig:
    """Change the given columns, creating the configuration if there is none, and return it."""
    VoiceAiConfig.insert(organization=organization_id).on_conflict_ignore().execute()
    changes = {**values, "updated_at": now()}
    VoiceAiConfig.update(changes).where(VoiceAiConfig.organization == organization_id).execute()
    return VoiceAiConfig.get(VoiceAiConfig.organization == organization_id)


def replace_tool_secret(organization_id: str, digest: str, previous_expires_at: str) -> None:
    """Make `digest` the tool secret; the one before it stays good until `previous_expires_at`."""
    config = update(organization_id, {})
    update(
        organization_id,
        {
            "tool_secret_digest": digest,
            "previous_tool_secret_digest": config.tool_secret_digest,
            "previous_tool_secret_expires_at": previous_expires_at if config.tool_secret_digest else None,
        },
    )


def claim_webhook_setup(organization_id: str, until: str) -> bool:
    """Take the right to set up the webhook until that moment; False while somebody else holds it."""
    config = VoiceAiConfig
    free = config.webhook_claimed_until.is_null() | (config.webhook_claimed_until < now())
    claim = config.update(webhook_claimed_until=until).where(config.organization == organization_id, free)
    return bool(claim.execute())


def _by_tool_secret() -> Any:
    config, digest = VoiceAiConfig, Given("digest")
    is_previous = (config.previous_tool_secret_digest == digest) & (
        config.previous_tool_secret_expires_at > Given("now")
    )
    return config.select(config.organization).where((config.tool_secret_digest == digest) | is_previous)


_BY_TOOL_SECRET = Statement(_by_tool_secret)
