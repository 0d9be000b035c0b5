"""Calls: finished ones pushed in from outside and read back, and the configuration of voice AI."""

import functools
from typing import Any, Literal

from pydantic import SecretStr

from actions.configure_voice_ai import VoiceAiChanges, configure_voice_ai
from actions.connect_agent import Wish, connect_agent
from actions.play_recording import LinkedRecording, link_recording
from actions.read_calls import CallStatistics, WholeCall, count_calls, list_calls, read_call
from actions.read_voice_ai import ConfiguredVoiceAi, read_voice_ai
from actions.record_call import FinishedCall, RecordedCall, record_call
from actions.relay import Relay
from domain.agents import Connection
from domain.audit import AuditAction
from domain.calls import CallFilter
from domain.errors import InvalidRequest, Overloaded, ProviderError, ProviderRejected, RecordingRejected
from domain.large_texts import LargeText
from domain.lengths import LENGTHS
from domain.principals import Role
from domain.statuses import Direction
from domain.times import to_wire
from handlers import wire
from handlers.acting import actor_of, built, noted_reading
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetCallsCall200,
    GetCallsCallAnswer,
    GetCallsHistory200,
    GetCallsHistoryAnswer,
    GetCallsRecording200,
    GetCallsRecordingAnswer,
    GetCallsStatistics200,
    GetCallsStatisticsAnswer,
    GetCallsVoiceAiConfig200,
    GetCallsVoiceAiConfigAnswer,
    PostCallsIngest200,
    PostCallsIngest201,
    PostCallsIngestAnswer,
    PostCallsVoiceAiAgentsConnect200,
    PostCallsVoiceAiAgentsConnectAnswer,
    PostCallsVoiceAiConfig200,
    PostCallsVoiceAiConfigAnswer,
)


async def post_calls_ingest(
    request: Request[Relay], *, body: models.CallsIngestExternalCallRequest
) -> PostCallsIngestAnswer:
    """Record a finished call once, or say that it is known."""
    organization_id = request.caller.organization_id
    read = functools.partial(
        _finished,
        body,
        request.large_text or _meaningful(body.recording),
        request.caller.user_id,
        is_heavy=request.is_heavy,
    )
    finished = await request.relay.heavy_work.run(organization_id, read) if request.is_heavy else read()
    recorded = await record_call(request.relay, organization_id, finished)
    if recorded.is_repeat:
        return PostCallsIngest200(_repeat(recorded))
    return PostCallsIngest201(
        models.CallsIngestCreatedResponse(
            success=True,
            callId=recorded.call_id,
            contactId=recorded.contact_id,
            conversationId=recorded.conversation_id,
        )
    )


async def post_calls_voice_ai_config(
    request: Request[Relay], *, body: models.CallsSaveVoiceAiConfigRequest
) -> PostCallsVoiceAiConfigAnswer:
    """Save what was supplied; reveal a fresh tool secret this once."""
    request.caller.require(Role.SUPERADMIN)
    fresh = await configure_voice_ai(request.relay, request.caller.organization_id, _changes(body), actor_of(request))
    saved = models.CallsSimpleSuccessResponse(success=True, message="Configuration saved")
    if fresh is not None:
        saved.elevenlabsToolSecret = fresh.get_secret_value()
    return PostCallsVoiceAiConfig200(saved, headers={"Cache-Control": "no-store"})


async def get_calls_voice_ai_config(request: Request[Relay]) -> GetCallsVoiceAiConfigAnswer:
    """Say what is configured, without the secrets."""
    config = await read_voice_ai(request.relay, request.caller.organization_id)
    await noted_reading(request, AuditAction.CONFIG_READ)
    return GetCallsVoiceAiConfig200(models.CallsVoiceAiConfigResponse(success=True, config=_configured(config)))


async def post_calls_voice_ai_agents_connect(
    request: Request[Relay], *, agent_id: str, body: models.CallsConnectAgentRequest
) -> PostCallsVoiceAiAgentsConnectAnswer:
    """Give an agent the contract's tools, and say part by part how it is connected."""
    request.caller.require(Role.SUPERADMIN)
    transfers = None if body.transfers is None else tuple((one.to, one.when) for one in body.transfers)
    wish, is_dry_run = Wish(transfers, body.transferText), bool(body.dryRun)
    organization_id = request.caller.organization_id
    try:
        connection = await connect_agent(
            request.relay, organization_id, agent_id, wish, actor_of(request), is_dry_run=is_dry_run
        )
    except ProviderRejected as error:
        raise InvalidRequest(str(error)) from error
    except ProviderError as error:
        raise Overloaded(str(error)) from error
    answer = models.CallsConnectAgentResponse(
        success=connection.is_whole, connection=_connection(connection, is_dry_run=is_dry_run)
    )
    return PostCallsVoiceAiAgentsConnect200(answer)


async def get_calls_history(
    request: Request[Relay],
    *,
    contact_id: str | None,
    user_id: str | None,
    status: Literal["completed", "no-answer", "busy", "failed"] | None,
    limit: str,
    offset: str,
    external_call_id: str | None,
    from_: str | None,
    to: str | None,
) -> GetCallsHistoryAnswer:
    """List calls, newest first."""
    wanted = CallFilter(contact_id, user_id, status, external_call_id, since=from_, before=to)
    found = await list_calls(
        request.relay, request.caller.organization_id, wanted, limit=int(limit), offset=int(offset)
    )
    await noted_reading(request, AuditAction.CALLS_LISTED, contact_id, limit=limit, offset=offset)

    def build() -> models.CallsHistoryResponse:
        return models.CallsHistoryResponse(
            success=True, calls=[wire.call(call) for call in found.calls], total=found.total
        )

    is_heavy = wire.is_long(call.row.summary for call in found.calls)
    return GetCallsHistory200(await built(request, build, is_heavy=is_heavy), is_heavy=is_heavy)


async def get_calls_statistics(
    request: Request[Relay], *, start_date: str | None, end_date: str | None
) -> GetCallsStatisticsAnswer:
    """Count calls and add up their durations."""
    statistics = await count_calls(request.relay, request.caller.organization_id, start_date, end_date)
    await noted_reading(request, AuditAction.STATISTICS_READ)
    body = models.CallsStatisticsResponse(success=True, statistics=_added_up(statistics))
    return GetCallsStatistics200(body)


async def get_calls_call(request: Request[Relay], *, call_id: str) -> GetCallsCallAnswer:
    """Read one call, with its transcript."""
    organization_id = request.caller.organization_id
    call = await read_call(request.relay, organization_id, call_id)
    await noted_reading(request, AuditAction.CALL_READ, call_id)
    is_heavy = wire.is_heavy(call.row)
    body = await built(request, functools.partial(_whole, call), is_heavy=is_heavy)
    return GetCallsCall200(body, is_heavy=is_heavy)


async def get_calls_recording(request: Request[Relay], *, call_id: str) -> GetCallsRecordingAnswer:
    """Hand out a link to a call's recording, with the transcript."""
    organization_id = request.caller.organization_id
    linked = await link_recording(request.relay, organization_id, call_id, actor_of(request))
    is_heavy = wire.is_heavy(linked.call)
    body = await built(request, functools.partial(_linked, linked), is_heavy=is_heavy)
    return GetCallsRecording200(body, headers={"Cache-Control": "no-store"}, is_heavy=is_heavy)


def _finished(
    body: models.CallsIngestExternalCallRequest,
    recording: str | LargeText | None,
    user_id: str | None,
    *,
    is_heavy: bool,
) -> FinishedCall:
    payload = body.model_dump(mode="json", exclude_unset=True)
    if recording is None:
        if body.status == "completed":
            raise RecordingRejected("Recording is empty")
        payload.pop("recording", None)
    else:
        payload["recording"] = recording
    return FinishedCall(
        direction=body.direction,
        from_number=body.fromNumber,
        to_number=body.toNumber,
        duration=body.duration,
        status=body.status,
        transcript=payload.get("transcript"),
        summary=body.summary,
        recording=recording,
        external_call_id=_meaningful(body.externalCallId),
        elevenlabs_conversation_id=_elevenlabs_conversation(body),
        agent_name=body.agentName,
        caller_name=body.callerName,
        started_at=to_wire(body.callStartTime) if body.callStartTime else None,
        provider_metadata=_provider_metadata(body),
        payload=payload,
        user_id=user_id,
        is_heavy=is_heavy,
    )


def _meaningful(text: str | None) -> str | None:
    # A blank id would make every later call with a blank id a repeat of the first.
    return text if text and text.strip() else None


def _provider_metadata(body: models.CallsIngestExternalCallRequest) -> dict[str, Any]:
    # What the contract does not name is accepted, and kept where a person would look for it.
    kept: dict[str, Any] = {"metadata": body.metadata, "additional": body.model_extra}
    return {name: value for name, value in kept.items() if value}


def _elevenlabs_conversation(body: models.CallsIngestExternalCallRequest) -> str | None:
    named = (body.metadata or {}).get("conversation_id", body.externalCallId)
    is_one = isinstance(named, str) and named.startswith("conv_") and len(named) <= LENGTHS["conversationId"]
    return named if is_one else None


def _repeat(recorded: RecordedCall) -> models.CallsIngestDedupResponse:
    repeat = models.CallsIngestDedupResponse(success=True, deduplicated=True, callId=recorded.call_id)
    if recorded.is_erased:
        return repeat
    repeat.payloadMatches = not recorded.differing_fields
    if recorded.differing_fields:
        repeat.differingFields = recorded.differing_fields
    return repeat


_COLUMNS = {
    "aiVoiceProvider": "ai_voice_provider",
    "sinchEstKeyId": "sinch_est_key_id",
    "sinchEstProjectId": "sinch_est_project_id",
    "sinchEstTrunkId": "sinch_est_trunk_id",
    "sinchEstTrunkDomain": "sinch_est_trunk_domain",
}


def _changes(body: models.CallsSaveVoiceAiConfigRequest) -> VoiceAiChanges:
    given = body.model_fields_set
    return VoiceAiChanges(
        columns={column: getattr(body, name) for name, column in _COLUMNS.items() if name in given},
        elevenlabs_api_key=SecretStr(body.elevenlabsApiKey) if body.elevenlabsApiKey else None,
        sinch_est_key_secret=SecretStr(body.sinchEstKeySecret) if body.sinchEstKeySecret else None,
        generate_tool_secret=bool(body.generateToolSecret),
    )


def _whole(call: WholeCall) -> models.CallsCallResponse:
    return models.CallsCallResponse(success=True, call=wire.whole_call(call))


def _linked(linked: LinkedRecording) -> models.CallsRecordingResponse:
    call = linked.call
    turns = wire.turns(call)
    return models.CallsRecordingResponse(
        success=True,
        callId=call.id,
        recordingId=linked.recording.id,
        audioUrl=linked.url,
        expiresAt=wire.moment(linked.expires_at),
        duration=call.duration,
        transcriptionText=None if turns is None else _as_text(turns),
        transcriptionData=turns or [],
        direction=Direction(call.direction).value,
        from_=call.from_number,
        to=call.to_number,
    )


def _as_text(turns: list[models.CallsTranscriptTurn]) -> str:
    return "\n".join(f"{turn.role.capitalize()}: {turn.message}" for turn in turns)


def _added_up(statistics: CallStatistics) -> models.CallsStatisticsResponseStatistics:
    altogether = statistics.altogether
    return models.CallsStatisticsResponseStatistics(
        totalCalls=altogether.count,
        totalDuration=altogether.duration,
        averageDuration=altogether.average,
        byStatus={
            status: models.CallsStatusFigures(
                count=figures.count, totalDuration=figures.duration, avgDuration=figures.average
            )
            for status, figures in statistics.by_status.items()
        },
    )


def _configured(found: ConfiguredVoiceAi) -> models.CallsVoiceAiConfig:
    config, workspace = found.config, found.workspace
    return models.CallsVoiceAiConfig(
        aiVoiceProvider=config.ai_voice_provider,
        hasElevenlabsApiKey=config.elevenlabs_api_key_sealed is not None,
        hasElevenlabsToolSecret=found.has_tool_secret,
        hasSinchEstCredentials=bool(config.sinch_est_key_id and config.sinch_est_key_secret_sealed),
        sinchEstProjectId=config.sinch_est_project_id,
        sinchEstTrunkId=config.sinch_est_trunk_id,
        sinchEstTrunkDomain=config.sinch_est_trunk_domain,
        webhook=models.CallsVoiceAiWebhook(
            status=found.webhook_status.value,
            webhookId=config.webhook_id,
            lastError=found.webhook_error,
            warning=config.webhook_warning,
            checkedAt=wire.moment_or_none(config.webhook_checked_at),
        ),
        phoneNumbers=[
            models.CallsVoiceAiPhoneNumber(phoneNumber=one.number, label=one.label, isDefault=one.is_default)
            for one in found.numbers
        ],
        toolSecret=models.CallsVoiceAiToolSecret(
            status=found.storing_status.value,
            lastError=workspace.secret_error,
            storedAt=wire.moment_or_none(workspace.secret_stored_at),
        ),
    )


def _connection(connection: Connection, *, is_dry_run: bool) -> models.CallsAgentConnection:
    return models.CallsAgentConnection(
        agentId=connection.agent_id,
        agentName=connection.agent_name,
        isDryRun=is_dry_run,
        problem=connection.problem,
        leftBehind=list(connection.left_behind),
        parts=[
            models.CallsAgentConnectionPart(
                kind=part.kind.value, name=part.name, state=part.state.value, detail=part.detail, change=part.change
            )
            for part in connection.parts
        ],
    )
