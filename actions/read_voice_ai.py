"""Reading an organization's voice AI configuration, without its secrets."""

from typing import Any

from actions.relay import Relay
from domain.statuses import SetupStatus
from persistence import phone_numbers, tool_secrets, voice_ai_configs
from persistence.models import PhoneNumber, VoiceAiConfig


async def read_voice_ai(relay: Relay, organization_id: str) -> dict[str, Any]:
    """Return what is configured in the contract's words; secrets are told as whether there is one."""

    def unit() -> dict[str, Any]:
        config = voice_ai_configs.get(organization_id) or VoiceAiConfig()
        has_secret = tool_secrets.current(organization_id) is not None
        return _described(config, phone_numbers.everyone(organization_id), has_secret=has_secret)

    return await relay.database.read(unit)


def _described(config: VoiceAiConfig, numbers: list[PhoneNumber], *, has_secret: bool) -> dict[str, Any]:
    is_pending = config.webhook_wanted > config.webhook_done
    return {
        "aiVoiceProvider": config.ai_voice_provider,
        "hasElevenlabsApiKey": config.elevenlabs_api_key_sealed is not None,
        "hasElevenlabsToolSecret": has_secret,
        "hasSinchEstCredentials": bool(config.sinch_est_key_id and config.sinch_est_key_secret_sealed),
        "sinchEstProjectId": config.sinch_est_project_id,
        "sinchEstTrunkId": config.sinch_est_trunk_id,
        "sinchEstTrunkDomain": config.sinch_est_trunk_domain,
        "webhook": {
            "status": SetupStatus.PENDING.value if is_pending else config.webhook_status,
            "webhookId": config.webhook_id,
            "lastError": None if is_pending else config.webhook_error,
            "warning": config.webhook_warning,
            "checkedAt": config.webhook_checked_at,
        },
        "phoneNumbers": [
            {"phoneNumber": number.number, "label": number.label, "isDefault": number.is_default} for number in numbers
        ],
    }
