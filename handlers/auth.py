"""Handlers of the operations on auth."""

from actions.relay import Relay
from openapi import exchange, models, operations


async def post_auth_login(
    request: exchange.Request[Relay], *, body: models.AuthLoginRequest
) -> operations.PostAuthLoginAnswer:
    """Sign in."""
    del request, body
    raise exchange.NotWritten


async def post_auth_refresh(request: exchange.Request[Relay]) -> operations.PostAuthRefreshAnswer:
    """Get a fresh token."""
    del request
    raise exchange.NotWritten


async def get_auth_verify_token(request: exchange.Request[Relay]) -> operations.GetAuthVerifyTokenAnswer:
    """Say whose token this is."""
    del request
    raise exchange.NotWritten


async def post_auth_sign_out(request: exchange.Request[Relay]) -> operations.PostAuthSignOutAnswer:
    """Sign out everywhere."""
    del request
    raise exchange.NotWritten
