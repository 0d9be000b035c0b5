"""Accounts: signing in, staying signed in, signing out everywhere."""

from pydantic import SecretStr

from actions.authenticate import authenticate
from actions.relay import Relay
from actions.sign_in import Account, SignedIn, account_of, refresh, sign_in, sign_out
from domain.errors import Unauthenticated
from domain.principals import TokenKind
from domain.times import from_wire
from handlers.acting import actor_of, user_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetAuthVerifyToken200,
    GetAuthVerifyTokenAnswer,
    PostAuthLogin200,
    PostAuthLoginAnswer,
    PostAuthRefresh200,
    PostAuthRefreshAnswer,
    PostAuthSignOut200,
    PostAuthSignOutAnswer,
)

_NOT_KEPT = {"Cache-Control": "no-store"}


async def post_auth_login(request: Request[Relay], *, body: models.AuthLoginRequest) -> PostAuthLoginAnswer:
    """Exchange an address and a password for a token."""
    signed_in = await sign_in(request.relay, body.email, SecretStr(body.password), actor_of(request))
    return PostAuthLogin200(_token(signed_in), _NOT_KEPT)


async def post_auth_refresh(
    request: Request[Relay], *, body: models.AuthRefreshRequest | None
) -> PostAuthRefreshAnswer:
    """Exchange a valid token for one that is valid for longer: the request's, or another one of the same user."""
    shown = request.caller
    if body is not None and body.refreshToken is not None:
        shown = await authenticate(request.relay, TokenKind.JWT, body.refreshToken)
        if shown.person != request.caller.person:
            raise Unauthenticated("The refresh token is another user's")
    signed_in = await refresh(request.relay, *user_of(request), shown.signed_in_at or 0)
    return PostAuthRefresh200(_token(signed_in), _NOT_KEPT)


async def get_auth_verify_token(request: Request[Relay]) -> GetAuthVerifyTokenAnswer:
    """Say whose token this is."""
    account = await account_of(request.relay, *user_of(request))
    return GetAuthVerifyToken200(models.AuthVerifiedResponse(message="Token is good", valid=True, user=_user(account)))


async def post_auth_sign_out(request: Request[Relay]) -> PostAuthSignOutAnswer:
    """Make every token of the user worthless."""
    await sign_out(request.relay, *user_of(request), actor_of(request))
    return PostAuthSignOut200(models.AuthSignedOutResponse(success=True, message="Signed out everywhere"))


def _token(signed_in: SignedIn) -> models.AuthTokenResponse:
    return models.AuthTokenResponse(
        token=signed_in.token.get_secret_value(),
        refreshToken=signed_in.token.get_secret_value(),
        expiresAt=from_wire(signed_in.expires_at),
        user=_user(signed_in.account),
    )


def _user(account: Account) -> models.AuthUser:
    return models.AuthUser(
        id=account.id,
        email=account.email,
        fullName=account.full_name,
        organizationId=account.organization_id,
        accessRole=account.role.value,
    )
