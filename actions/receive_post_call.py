"""What ElevenLabs reports after a call: believed by its signature, then recorded as ingest would record it.

The organization is the one whose secret verified the delivery. A header of ours, which ElevenLabs was asked to send
along, says whose secret to try. Without it a few are tried, at most so many times a minute for one address and on so
many bytes: everybody may send such a delivery, and each secret hashes the whole body anew (the key goes first in an
HMAC, so no work is shared).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import SecretStr

from actions.attach_recording import attach_recording
from actions.configure_voice_ai import ORGANIZATION_HEADER
from actions.delivery_body import DeliveryBody
from actions.record_call import FinishedCall, record_call
from actions.refusals import counted
from actions.relay import Relay
from actions.settle_transfers import settle_transfers
from actions.tool_calls import contact_of, context_of, normalise
from domain import documents
from domain.errors import ConfigurationError, InvalidRequest, Unauthenticated
from domain.identifiers import is_id
from domain.times import to_wire
from persistence import calls, contacts, phone_numbers, voice_ai_configs
from providers.elevenlabs import SignatureCheck
from providers.elevenlabs_calls import PostCallReport, ReportedCall, ReportKind, read_report

SOURCE = "elevenlabs"
NOTED_BY = "post-call"

_VENDOR = "elevenlabs"
_MOST_HASHED_BYTES = 128 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Signed:
    """How a delivery proves itself: the signature header, the organization it says it is for, and where it is from."""

    signature: str
    organization_hint: str | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True)
class PostCallDelivery:
    """A delivery that was believed."""

    organization_id: str
    body: DeliveryBody


@contextlib.asynccontextmanager
async def open_delivery(
    relay: Relay, proof: str | Signed, chunks: AsyncIterable[bytes]
) -> AsyncIterator[PostCallDelivery]:
    """Receive a delivery; `proof` is its signature, or the organization whose tool secret came with it.

    Raises:
        Unauthenticated: when no secret verifies it, or too many would have to be tried.
        RateLimited: when it names no organization and too many such deliveries came from its address.
    """
    with DeliveryBody() as body:
        if isinstance(proof, str):
            await body.receive(chunks, lambda _: None)
            organization_id = proof
        else:
            with counted(relay, _VENDOR):
                organization_id = await _verified(relay, proof, body, chunks)
        yield PostCallDelivery(organization_id, body)


async def receive_post_call(relay: Relay, delivery: PostCallDelivery) -> str | None:
    """Record what a delivery reports; return the id of its call, None when there is none (yet).

    Raises:
        InvalidRequest: when it cannot be read.
        RecordingRejected: when its audio is not MP3 in base64.
        StorageUnavailable: when its audio cannot be stored.
    """
    text, audio = await delivery.body.document()
    is_heavy = documents.is_heavy(text)

    def read() -> PostCallReport:
        return read_report(documents.load(text, relay.rules.max_document_values))

    report = await relay.heavy_work.run(delivery.organization_id, read) if is_heavy else read()
    if report.kind is ReportKind.AUDIO:
        if audio is None:
            raise InvalidRequest("A report of type post_call_audio carries the recording in full_audio, as a text")
        pieces = delivery.body.audio(audio, relay.rules.max_recording_bytes)
        return await attach_recording(relay, delivery.organization_id, report.conversation_id, pieces)
    if report.call is None:
        log.info("post_call.ignored", organization_id=delivery.organization_id)
        return None
    return await _record(relay, delivery.organization_id, report.conversation_id, report.call, is_heavy=is_heavy)


# Believing


async def _verified(relay: Relay, proof: Signed, body: DeliveryBody, chunks: AsyncIterable[bytes]) -> str:
    # A malformed or outdated header is refused before any secret is looked up.
    _check(relay, proof, [])
    hint = proof.organization_hint if proof.organization_hint and is_id(proof.organization_hint) else None
    if hint is None:
        await relay.rates.admit_unnamed_delivery(proof.client)
    owners = await _secrets(relay, hint)
    if not owners:
        raise Unauthenticated("No organization has such a webhook")
    check, budget = _check(relay, proof, [secret for _, secret in owners]), _Budget(_MOST_HASHED_BYTES // len(owners))

    def hear(piece: bytes) -> None:
        budget.spend(len(piece))
        check.feed(piece)

    await body.receive(chunks, hear)
    signed_with = check.finish()
    return next(organization_id for organization_id, secret in owners if secret is signed_with)


def _check(relay: Relay, proof: Signed, secrets: list[SecretStr]) -> SignatureCheck:
    return SignatureCheck(proof.signature, secrets, now=time.time(), tolerance_seconds=relay.rules.webhook_tolerance)


async def _secrets(relay: Relay, organization_id: str | None) -> list[tuple[str, SecretStr]]:
    most = relay.rules.webhook_organizations_tried
    configs = await relay.database.read(lambda: voice_ai_configs.with_webhook_secret(most + 1, organization_id))
    if len(configs) > most:
        raise Unauthenticated(f"The delivery does not say whose it is; have the webhook send {ORGANIZATION_HEADER}")
    sealed = [(config.organization_id, config.webhook_secret_sealed or "") for config in configs]
    return await asyncio.to_thread(lambda: [opened for one in sealed if (opened := _opened(relay, *one))])


def _opened(relay: Relay, organization_id: str, sealed: str) -> tuple[str, SecretStr] | None:
    try:
        return organization_id, relay.vault.open(sealed)
    except ConfigurationError as error:
        if deliveries := relay.repetition.count(f"webhook.secret_unreadable {organization_id}"):
            log.warning(
                "webhook.secret_unreadable", organization_id=organization_id, reason=str(error), deliveries=deliveries
            )
        return None


class _Budget:
    """How much may be hashed with every secret before a delivery has to name its organization."""

    def __init__(self, size: int) -> None:
        self._left = size

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Unauthenticated(
                f"Too large to try several organizations' secrets; have the webhook send {ORGANIZATION_HEADER}"
            )


# Recording


async def _record(
    relay: Relay, organization_id: str, conversation_id: str, reported: ReportedCall, *, is_heavy: bool
) -> str | None:
    far, ours = await relay.database.read(lambda: _sides(organization_id, conversation_id, reported))
    if far is None or ours is None:
        # Refusing it would not bring a number; ten refusals would have the webhook switched off.
        log.warning("post_call.without_numbers", organization_id=organization_id, conversation_id=conversation_id)
        return None
    finished = replace(_finished(conversation_id, reported, far, ours), is_heavy=is_heavy)
    recorded = await record_call(relay, organization_id, finished)
    if reported.transcript is not None and not recorded.is_erased:
        await settle_transfers(relay, organization_id, recorded.call_id, reported)
    return recorded.call_id


def _sides(organization_id: str, conversation_id: str, reported: ReportedCall) -> tuple[str | None, str | None]:
    """Return the number on the far side, and ours."""
    sides = [normalise(organization_id, number or "") for number in (reported.from_number, reported.to_number)]
    far, ours = sides if reported.direction == "inbound" else reversed(sides)
    if far and ours:
        return far, ours
    context = context_of(organization_id, conversation_id, reported.call_sid)
    caller, called = (context.caller_number, context.called_number) if context else (None, None)
    return (
        far or _told(organization_id, conversation_id) or caller,
        ours or called or phone_numbers.default(organization_id),
    )


def _told(organization_id: str, conversation_id: str) -> str | None:
    # A call over the web has no number, but it may be known already, or the agent may have asked for one and used it.
    call = calls.by_elevenlabs_conversation(organization_id, conversation_id)
    if call is not None:
        return (call.from_number if call.direction == "inbound" else call.to_number) or None
    contact_id = contact_of(organization_id, conversation_id)
    contact = contacts.get(organization_id, contact_id) if contact_id else None
    return contact.phone_number if contact else None


def _finished(conversation_id: str, reported: ReportedCall, far: str, ours: str) -> FinishedCall:
    from_number, to_number = (far, ours) if reported.direction == "inbound" else (ours, far)
    started_at = None if reported.started_at is None else to_wire(datetime.fromtimestamp(reported.started_at, UTC))
    # In the words of ingest, so that the same call pushed in there is compared field by field.
    payload: dict[str, Any] = {
        "direction": reported.direction,
        "fromNumber": from_number,
        "toNumber": to_number,
        "duration": reported.duration,
        "status": reported.status,
        "transcript": reported.transcript,
        "summary": reported.summary,
        "externalCallId": conversation_id,
        "agentName": reported.agent_name,
        "metadata": reported.facts,
        "callStartTime": started_at,
    }
    return FinishedCall(
        direction=reported.direction,
        from_number=from_number,
        to_number=to_number,
        duration=reported.duration,
        status=reported.status,
        source=SOURCE,
        transcript=reported.transcript,
        summary=reported.summary,
        external_call_id=conversation_id,
        elevenlabs_conversation_id=conversation_id,
        agent_name=reported.agent_name,
        started_at=started_at,
        provider_metadata={"metadata": reported.facts},
        payload={name: value for name, value in payload.items() if value is not None},
        noted_by=NOTED_BY,
    )
