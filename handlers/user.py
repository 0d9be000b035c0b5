"""A user's own API keys, the first one and further ones with a name, and whether the user takes calls."""

from pydantic import SecretStr

from actions.api_keys import (
    FreshKey,
    Key,
    create_api_key,
    list_api_keys,
    regenerate_api_key,
    renew_api_key,
    revoke_api_key,
    show_api_key,
)
from actions.availability import set_availability
from actions.relay import Relay
from domain.principals import KeyKind
from domain.times import to_wire
from handlers import wire
from handlers.acting import actor_of, user_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    DeleteUserApiKeysKey200,
    DeleteUserApiKeysKeyAnswer,
    GetUserApiKey200,
    GetUserApiKeyAnswer,
    GetUserApiKeys200,
    GetUserApiKeysAnswer,
    PostUserApiKeyRegenerate200,
    PostUserApiKeyRegenerateAnswer,
    PostUserApiKeys201,
    PostUserApiKeysAnswer,
    PostUserApiKeysRenew200,
    PostUserApiKeysRenewAnswer,
    PutUserAvailability200,
    PutUserAvailabilityAnswer,
)

_NOT_KEPT = {"Cache-Control": "no-store"}


async def get_user_api_key(request: Request[Relay]) -> GetUserApiKeyAnswer:
    """Show the user's first key, made on first use."""
    key = await show_api_key(request.relay, *user_of(request), actor_of(request))
    return GetUserApiKey200(_shown("API key ready", key), _NOT_KEPT)


async def post_user_api_key_regenerate(
    request: Request[Relay], *, overlap_minutes: int | None
) -> PostUserApiKeyRegenerateAnswer:
    """Replace the user's first key."""
    key = await regenerate_api_key(request.relay, *user_of(request), actor_of(request), _seconds(overlap_minutes))
    return PostUserApiKeyRegenerate200(_shown("API key regenerated", key), _NOT_KEPT)


async def get_user_api_keys(request: Request[Relay]) -> GetUserApiKeysAnswer:
    """List the user's keys."""
    found = await list_api_keys(request.relay, *user_of(request))
    data = models.UserApiKeysResponseData(apiKeys=[_described(key) for key in found])
    return GetUserApiKeys200(models.UserApiKeysResponse(success=True, data=data))


async def post_user_api_keys(request: Request[Relay], *, body: models.UserApiKeyRequest) -> PostUserApiKeysAnswer:
    """Make another key; its secret is shown this once."""
    fresh = await create_api_key(
        request.relay,
        *user_of(request),
        actor_of(request),
        name=body.name,
        kind=KeyKind(body.kind or KeyKind.BOTH),
        expires_at=to_wire(body.expiresAt) if body.expiresAt else None,
    )
    return PostUserApiKeys201(_created("API key created", fresh), _NOT_KEPT)


async def delete_user_api_keys_key(request: Request[Relay], *, key_id: str) -> DeleteUserApiKeysKeyAnswer:
    """Revoke a key."""
    await revoke_api_key(request.relay, *user_of(request), key_id, actor_of(request))
    return DeleteUserApiKeysKey200(models.UserApiKeyRevokedResponse(success=True, message="API key revoked"))


async def post_user_api_keys_renew(
    request: Request[Relay], *, key_id: str, overlap_minutes: int | None
) -> PostUserApiKeysRenewAnswer:
    """Replace the secret of a key."""
    overlap = _seconds(overlap_minutes)
    fresh = await renew_api_key(request.relay, *user_of(request), key_id, actor_of(request), overlap)
    return PostUserApiKeysRenew200(_created("API key renewed", fresh), _NOT_KEPT)


async def put_user_availability(
    request: Request[Relay], *, body: models.UserAvailabilityRequest
) -> PutUserAvailabilityAnswer:
    """Note that the user is there, and whether the user takes calls."""
    kept = "" if "transferNumber" not in body.model_fields_set else None
    said = await set_availability(
        request.relay,
        *user_of(request),
        is_available=body.isAvailable,
        is_online=body.isOnline,
        transfer_number=body.transferNumber or kept,
    )
    data = models.UserAvailability(
        userId=said.user_id,
        isOnline=said.is_online,
        isAvailable=said.is_available,
        onlineUntil=wire.moment(said.online_until),
        transferNumber=said.transfer_number,
    )
    return PutUserAvailability200(models.UserAvailabilityResponse(success=True, data=data))


def _shown(message: str, key: SecretStr) -> models.UserApiKeyResponse:
    data = models.UserApiKeyResponseData(apiKey=key.get_secret_value())
    return models.UserApiKeyResponse(success=True, message=message, data=data)


def _created(message: str, fresh: FreshKey) -> models.UserApiKeyCreatedResponse:
    data = models.UserApiKeyCreatedResponseData(apiKey=fresh.secret.get_secret_value(), key=_described(fresh.key))
    return models.UserApiKeyCreatedResponse(success=True, message=message, data=data)


def _described(key: Key) -> models.UserApiKey:
    return models.UserApiKey(
        id=key.id,
        name=key.name,
        kind=key.kind.value,
        createdAt=wire.moment(key.created_at),
        expiresAt=wire.moment_or_none(key.expires_at),
        lastUsedAt=wire.moment_or_none(key.last_used_at),
        previousExpiresAt=wire.moment_or_none(key.previous_expires_at),
    )


def _seconds(minutes: int | None) -> float | None:
    return None if minutes is None else minutes * 60.0
