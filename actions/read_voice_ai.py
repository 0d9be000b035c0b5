"""Reading an organization's voice AI configuration, without its secrets."""

from typing import Any

from actions.relay import Relay
from domain.statuses import SetupStatus
from persistence import phone_numbers, voice_ai_configs
from persistence.models import PhoneNumber, VoiceAiConfig


async def read_voice_ai(relay: Relay, organization_id: str) -> dict[str, Any]:
    """Return what is configured in the contract's words; secrets are told as whether there is one."""

    def unit() -> dict[str, Any]:
        config = voice_ai_configs.get(organization_id) or VoiceAiConfig()
        return _described(config, phone_numbers.everyone(organization_id))

    return await relay.database.read(unit)


def _described(config: VoiceAiConfig, numbers: list[PhoneNumber]) -> dict[str, Any]:
    return {
        "aiVoiceProvider": config.ai_voice_provider,
        "hasElevenlabsApiKey": config.elevenlabs_api_key_sealed is not None,
        "hasElevenlabsToolSecret": config.tool_secret_digest is not None,
        "hasSinchEstCredentials": bool(config.sinch_est_key_id and config.sinch_est_key_secret_sealed),
        "sinchEstProjectId": config.sinch_est_project_id,
        "sinchEstTrunkId": config.sinch_est_trunk_id,
        "sinchEstTrunkDomain": config.sinch_est_trunk_domain,
        "webhook": {
            "status": config.webhook_status or SetupStatus.NOT_CONFIGURED.value,
            "webhookId": config.webhook_id,
            "lastError": config.webhook_error,
            "checkedAt": config.webhook_checked_at,
        },
        "phoneNumbers": [
            {"phoneNumber": number.number, "label": number.label, "isDefault": number.is_default} for number in numbers
        ],
    }
