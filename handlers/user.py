"""Handlers of the operations on user."""

from actions.relay import Relay
from openapi import exchange, operations


async def get_user_api_key(request: exchange.Request[Relay]) -> operations.GetUserApiKeyAnswer:
    """Show the user's API key."""
    del request
    raise exchange.NotWritten


async def post_user_api_key_regenerate(request: exchange.Request[Relay]) -> operations.PostUserApiKeyRegenerateAnswer:
    """Replace the user's API key."""
    del request
    raise exchange.NotWritten
