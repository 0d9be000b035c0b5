"""Believing tokens. Each kind is recognised on its own; a token of another kind is as good as none."""

import contextlib
from collections.abc import Collection

from actions.relay import Relay
from actions.vault import digest
from domain.errors import Overloaded, Unauthenticated
from domain.principals import Principal, Role, TokenKind
from domain.times import later
from persistence import api_keys, tool_secrets, users

API_KEY_PREFIX = "tk_live_"

# Last use is recorded to the minute, so that a busy secret costs one write a minute.
_LAST_USE_SECONDS = 60


async def authenticate(relay: Relay, kind: TokenKind, token: str) -> Principal:
    """Return the principal a token of that kind belongs to.

    Raises:
        Unauthenticated: when it is none, whatever the reason.
    """
    if kind is TokenKind.JWT:
        return await _by_jwt(relay, token)
    if kind is TokenKind.API_KEY:
        return await _by_api_key(relay, token)
    return await _by_tool_secret(relay, token)


async def identify(relay: Relay, token: str) -> Principal:
    """Return the principal of a listener, who may bring a JWT or an API key.

    Raises:
        Unauthenticated: when the token is neither.
    """
    kind = TokenKind.API_KEY if token.startswith(API_KEY_PREFIX) else TokenKind.JWT
    return await authenticate(relay, kind, token)


async def revoked(relay: Relay, principals: Collection[Principal]) -> list[Principal]:
    """Return those whose tokens would not be believed any more, whenever they expire.

    Two queries, however many there are; whoever asks sees to it that there are not too many.
    """
    of_users = {one.person for one in principals if one.kind is TokenKind.JWT}
    of_keys = {one.credential for one in principals if one.kind is TokenKind.API_KEY}

    def unit() -> tuple[dict[str, int], set[str]]:
        return users.token_versions(of_users), api_keys.among(of_keys)

    versions, keys = await relay.database.read(unit)

    def is_good(one: Principal) -> bool:
        if one.kind is TokenKind.API_KEY:
            return one.credential in keys
        return str(versions.get(one.person)) == one.credential

    return [one for one in principals if not is_good(one)]


async def _by_jwt(relay: Relay, token: str) -> Principal:
    claims = relay.tokens.verify(token)
    user = await relay.database.read(lambda: users.get(claims.user_id))
    if user is None or user.token_version != claims.token_version:
        raise Unauthenticated("Invalid token")
    return Principal(
        TokenKind.JWT, user.organization_id, user.id, Role(user.role), claims.expires_at, str(user.token_version)
    )


async def _by_api_key(relay: Relay, token: str) -> Principal:
    hashed = digest(token)
    key = await relay.database.read(lambda: api_keys.by_digest(hashed))
    if key is None:
        raise Unauthenticated("Invalid API key")
    return Principal(TokenKind.API_KEY, key.organization_id, key.user_id, credential=hashed)


async def _by_tool_secret(relay: Relay, token: str) -> Principal:
    found = await relay.database.read(lambda: tool_secrets.find(digest(token)))
    if found is None:
        raise Unauthenticated("Invalid tool secret")
    secret_id, organization_id, last_used_at = found
    if last_used_at is None or last_used_at < later(-_LAST_USE_SECONDS):
        # A tool call that cannot be noted is served, or fails for a reason of its own.
        with contextlib.suppress(Overloaded):
            await relay.database.write(lambda: tool_secrets.touch(secret_id))
    return Principal(TokenKind.TOOL_SECRET, organization_id)
