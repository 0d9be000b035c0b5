"""Reading an organization's voice AI configuration, without its secrets."""

from typing import Any

from actions.relay import Relay
from domain.statuses import SetupStatus
from persistence import agents, phone_numbers, tool_secrets, voice_ai_configs
from persistence.models import AgentWorkspace, PhoneNumber, VoiceAiConfig


async def read_voice_ai(relay: Relay, organization_id: str) -> dict[str, Any]:
    """Return what is configured in the contract's words; secrets are told as whether there is one."""

    def unit() -> dict[str, Any]:
        config = voice_ai_configs.get(organization_id) or VoiceAiConfig()
        has_secret = tool_secrets.current(organization_id) is not None
        workspace = agents.workspace(organization_id) or AgentWorkspace()
        numbers = phone_numbers.everyone(organization_id)
        return _described(config, numbers, has_secret=has_secret) | {"toolSecret": _tool_secret(workspace)}

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


def _tool_secret(workspace: AgentWorkspace) -> dict[str, Any]:
    is_waiting = workspace.secret_sealed is not None
    is_pending = is_waiting and workspace.secret_wanted > workspace.secret_done
    status = "pending" if is_pending else "failed" if is_waiting else "stored" if workspace.secret_id else "not_stored"
    return {"status": status, "lastError": workspace.secret_error, "storedAt": workspace.secret_stored_at}
