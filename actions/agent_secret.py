"""The tool secret in an organization's ElevenLabs workspace: written there, rotated in place, and no person sees it.

A new secret is valid here before ElevenLabs hears of it, and the one before it stays valid until ElevenLabs has taken
the new one. So a tool call is never refused because of a rotation, whatever is lost on the way.
"""

import asyncio
import secrets
from dataclasses import dataclass
from functools import partial

import structlog
from pydantic import SecretStr

from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.errors import InvalidRequest, OutcomeUnknown, ProviderError, ProviderRejected, RelayError, facts_of
from domain.times import later, now
from keyring.vault import digest
from persistence import agents, audit, tool_secrets, voice_ai_configs
from persistence.models import AgentWorkspace
from providers.elevenlabs_agents import Agents

_WRITING_SECONDS = 30
_RETRY_SECONDS = 60
_RESUMED_AT_ONCE = 16
_SCHEDULE = Actor(client="schedule")

log = structlog.get_logger()


def secret_name(organization_id: str) -> str:
    """Return what the organization's secret is called at ElevenLabs."""
    return f"tether-relay-{organization_id}"


def begin_rotation(relay: Relay, organization_id: str, secret: SecretStr, actor: Actor) -> bool:
    """Make `secret` the tool secret, in a unit of the organization.

    Without a secret at ElevenLabs the one before it keeps working for the overlap, and earlier ones until their own
    ends. Otherwise it keeps working until the new one was written there.

    Returns:
        whether it is to be written to ElevenLabs, by `write_rotated_secret` after the commit.

    Raises:
        InvalidRequest: if ElevenLabs has not taken the last ten.
    """
    kept = agents.workspace(organization_id)
    is_stored = kept is not None and kept.secret_id is not None
    if is_stored:
        _await_writing(relay, organization_id, secret)
    else:
        expires_at = later(relay.rules.tool_secret_overlap)
        tool_secrets.replace(organization_id, digest(secret.get_secret_value()), expires_at)
    audit.record(organization_id, AuditAction.TOOL_SECRET_ROTATED, actor)
    return is_stored


def begin_storing(relay: Relay, organization_id: str, actor: Actor) -> None:
    """Make a secret for ElevenLabs beside those that people know, in a unit; one that still waits is kept."""
    kept = agents.workspace(organization_id)
    if kept is None or kept.secret_sealed is None:
        _await_writing(relay, organization_id, SecretStr(secrets.token_hex(32)))
        audit.record(organization_id, AuditAction.TOOL_SECRET_ROTATED, actor)


def _await_writing(relay: Relay, organization_id: str, secret: SecretStr) -> None:
    kept = agents.workspace(organization_id)
    if not tool_secrets.add(organization_id, digest(secret.get_secret_value())):
        raise InvalidRequest(
            "ElevenLabs has not taken the last tool secrets, and all of them still work. `manage.py agent check` says "
            "why; `manage.py key end-tool-secrets --id` ends one"
        )
    wanted = (kept.secret_wanted if kept else 0) + 1
    sealed = relay.vault.seal(secret.get_secret_value())
    agents.update_workspace(organization_id, {"secret_sealed": sealed, "secret_wanted": wanted, "secret_error": None})


async def write_secret(relay: Relay, organization_id: str, vendor: Agents) -> str:
    """Write the secret that waits to ElevenLabs, and return its id there; the caller holds the workspace's claim.

    A secret of ours that is there already is changed in place. The others then work for the overlap, except at the
    first time: until then only people knew them.

    Raises:
        ProviderError: if ElevenLabs refused it, did not hear of it, or may have; all secrets go on working.
    """
    kept = await relay.database.read(lambda: agents.workspace(organization_id))
    if kept is None or kept.secret_sealed is None:
        raise InvalidRequest("There is no tool secret to write")
    value, name = relay.vault.open(kept.secret_sealed).get_secret_value(), secret_name(organization_id)
    header = SecretStr(f"Bearer {value}")
    secret_id = await _known(vendor, kept, name)
    if secret_id is None:
        secret_id = await _created(vendor, name, header)
    else:
        await vendor.change_secret(secret_id, name, header)
    await relay.database.write(
        partial(_note_written, relay, organization_id, kept, secret_id, digest(value)), of=organization_id
    )
    return secret_id


async def _known(vendor: Agents, kept: AgentWorkspace, name: str) -> str | None:
    if kept.secret_id is not None and await vendor.has_secret(kept.secret_id, name):
        return str(kept.secret_id)
    return await vendor.find_secret(name)


async def _created(vendor: Agents, name: str, header: SecretStr) -> str:
    try:
        return await vendor.create_secret(name, header)
    except OutcomeUnknown:
        found = await vendor.find_secret(name)
        if found is None:
            raise
        await vendor.change_secret(found, name, header)
        return found


def _note_written(
    relay: Relay, organization_id: str, written: AgentWorkspace, secret_id: str, written_digest: str
) -> None:
    kept = agents.workspace(organization_id)
    is_newest = kept is not None and kept.secret_wanted == written.secret_wanted
    values = {
        "secret_id": secret_id,
        "secret_digest": written_digest,
        "secret_done": written.secret_wanted,
        "secret_error": None,
        "secret_stored_at": now(),
    }
    agents.update_workspace(organization_id, values | ({"secret_sealed": None} if is_newest else {}))
    if is_newest and written.secret_id is not None:
        tool_secrets.end_others(organization_id, written_digest, later(relay.rules.tool_secret_overlap))


# Rotation


async def write_rotated_secret(relay: Relay, organization_id: str) -> None:
    """Write the newest secret to ElevenLabs and record the result; nothing if another process works on the workspace.

    What was certainly refused is not tried again by itself; anything else is, by `resume_secret_writes`.
    """
    for _ in range(tool_secrets.MAX_ENDLESS):
        claimed = await relay.database.write(
            lambda: agents.claim(organization_id, later(2 * _WRITING_SECONDS)), of=organization_id
        )
        if claimed is None:
            return
        outcome = _Outcome()
        try:
            outcome = await _attempt(relay, organization_id)
        finally:
            await asyncio.shield(
                relay.database.write(partial(_finish, organization_id, claimed, outcome), of=organization_id)
            )
        if outcome.error is not None or not await relay.database.read(partial(_is_pending, organization_id)):
            return


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a try; `wanted` is the count of the value it was about."""

    error: str | None = None
    wanted: int = 0
    is_final: bool = False


async def _attempt(relay: Relay, organization_id: str) -> _Outcome:
    kept = await relay.database.read(lambda: agents.workspace(organization_id))
    if kept is None or kept.secret_sealed is None:
        return _Outcome()
    try:
        vendor = await workspace_of(relay, organization_id)
        async with asyncio.timeout(_WRITING_SECONDS):
            await write_secret(relay, organization_id, vendor)
    except (RelayError, TimeoutError) as error:
        reason = str(error) or "ElevenLabs did not answer in time"
        log.warning("tool_secret.not_written", organization_id=organization_id, reason=reason)
        may_help = isinstance(error, TimeoutError) or (
            isinstance(error, ProviderError) and not isinstance(error, ProviderRejected)
        )
        return _Outcome(reason, kept.secret_wanted, is_final=not may_help)
    return _Outcome()


def _finish(organization_id: str, claimed: str, outcome: _Outcome) -> None:
    agents.release(organization_id, claimed)
    if outcome.error is None:
        return
    values: dict[str, object] = {"secret_error": outcome.error}
    # The claim's end is also when the next try may begin.
    values |= {"secret_done": outcome.wanted} if outcome.is_final else {"claimed_until": later(_RETRY_SECONDS)}
    agents.update_workspace(organization_id, values)


def _is_pending(organization_id: str) -> bool:
    kept = agents.workspace(organization_id)
    return kept is not None and kept.secret_id is not None and kept.secret_wanted > kept.secret_done


async def resume_secret_writes(relay: Relay) -> int:
    """Write the secrets that ElevenLabs could not be given before; return how many were tried."""
    waiting = (await relay.database.read(agents.wanting_secret))[:_RESUMED_AT_ONCE]
    outcomes = await asyncio.gather(*(write_rotated_secret(relay, one) for one in waiting), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            log.error("tool_secret.resume_failed", **facts_of(outcome))
    return len(waiting)


async def rotate_old_secrets(relay: Relay) -> int:
    """Rotate the secrets that have been at ElevenLabs for longer than is set; return how many."""
    age = relay.rules.tool_secret_rotation
    if not age:
        return 0
    moment, rotated = later(-age), 0
    due = (await relay.database.read(partial(agents.stored_before, moment)))[:_RESUMED_AT_ONCE]
    for organization_id in due:
        unit = partial(_rotate_if_due, relay, organization_id, moment)
        if await relay.database.write(unit, of=organization_id):
            rotated += 1
            await write_rotated_secret(relay, organization_id)
    return rotated


def _rotate_if_due(relay: Relay, organization_id: str, moment: str) -> bool:
    # Another process may have done it since.
    if organization_id not in agents.stored_before(moment):
        return False
    return begin_rotation(relay, organization_id, SecretStr(secrets.token_hex(32)), _SCHEDULE)


async def workspace_of(relay: Relay, organization_id: str) -> Agents:
    """Return the organization's ElevenLabs workspace.

    Raises:
        InvalidRequest: if no API key is configured.
    """
    config = await relay.database.read(lambda: voice_ai_configs.get(organization_id))
    if config is None or config.elevenlabs_api_key_sealed is None:
        raise InvalidRequest(
            "No ElevenLabs API key is configured; save elevenlabsApiKey with POST /api/calls/voice-ai/config first"
        )
    return Agents(relay.elevenlabs(relay.vault.open(config.elevenlabs_api_key_sealed)))
