"""Reading an organization's voice AI configuration, without its secrets."""

from dataclasses import dataclass
from enum import StrEnum

from actions.relay import Relay
from domain.statuses import SetupStatus
from persistence import agents, phone_numbers, tool_secrets, voice_ai_configs
from persistence.models import AgentWorkspace, PhoneNumber, VoiceAiConfig


class StoringStatus(StrEnum):
    """How the tool secret that ElevenLabs keeps for connected agents stands."""

    NOT_STORED = "not_stored"
    STORED = "stored"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ConfiguredVoiceAi:
    """What is configured; of secrets, only whether there is one may be told."""

    config: VoiceAiConfig
    workspace: AgentWorkspace
    numbers: list[PhoneNumber]
    has_tool_secret: bool

    @property
    def webhook_status(self) -> SetupStatus:
        """How the set-up of the webhook stands that the last save asked for."""
        is_pending = self.config.webhook_wanted > self.config.webhook_done
        return SetupStatus.PENDING if is_pending else SetupStatus(self.config.webhook_status)

    @property
    def webhook_error(self) -> str | None:
        """Why the last set-up failed, unless another one is under way."""
        return None if self.webhook_status is SetupStatus.PENDING else self.config.webhook_error

    @property
    def storing_status(self) -> StoringStatus:
        """Whether ElevenLabs has taken the newest tool secret."""
        if self.workspace.secret_sealed is None:
            return StoringStatus.STORED if self.workspace.secret_id else StoringStatus.NOT_STORED
        is_pending = self.workspace.secret_wanted > self.workspace.secret_done
        return StoringStatus.PENDING if is_pending else StoringStatus.FAILED


async def read_voice_ai(relay: Relay, organization_id: str) -> ConfiguredVoiceAi:
    """Return what is configured."""

    def unit() -> ConfiguredVoiceAi:
        return ConfiguredVoiceAi(
            voice_ai_configs.get(organization_id) or VoiceAiConfig(),
            agents.workspace(organization_id) or AgentWorkspace(),
            phone_numbers.everyone(organization_id),
            tool_secrets.current(organization_id) is not None,
        )

    return await relay.database.read(unit)
