"""A user's own API key."""

from pydantic import SecretStr

from actions.api_keys import regenerate_api_key, show_api_key
from actions.relay import Relay
from handlers.acting import actor_of, user_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetUserApiKey200,
    GetUserApiKeyAnswer,
    PostUserApiKeyRegenerate200,
    PostUserApiKeyRegenerateAnswer,
)

_NOT_KEPT = {"Cache-Control": "no-store"}


async def get_user_api_key(request: Request[Relay]) -> GetUserApiKeyAnswer:
    """Show the user's key, made on first use."""
    key = await show_api_key(request.relay, *user_of(request), actor_of(request))
    return GetUserApiKey200(_shown("API key ready", key), _NOT_KEPT)


async def post_user_api_key_regenerate(request: Request[Relay]) -> PostUserApiKeyRegenerateAnswer:
    """Replace the user's key."""
    key = await regenerate_api_key(request.relay, *user_of(request), actor_of(request))
    return PostUserApiKeyRegenerate200(_shown("API key regenerated", key), _NOT_KEPT)


def _shown(message: str, key: SecretStr) -> models.UserApiKeyResponse:
    data = models.UserApiKeyResponseData(apiKey=key.get_secret_value())
    return models.UserApiKeyResponse(success=True, message=message, data=data)
