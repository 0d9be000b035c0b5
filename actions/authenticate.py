"""Verifying tokens. Each kind is recognised on its own; a token of another kind is refused like an invalid one."""

import time
from collections.abc import Collection

import structlog

from actions.relay import Relay
from domain.errors import RelayError, Unauthenticated
from domain.principals import KeyKind, Principal, Role, TokenKind
from domain.statuses import UserStatus
from domain.times import from_wire, later
from keyring.vault import digest
from persistence import api_keys, readiness, tool_secrets, users

API_KEY_PREFIX = "tk_live_"

# The last use of a key is noted at most this often, and by one process for at most this many keys before it asks anew.
_NOTED_SECONDS = 60
_MOST_NOTED = 10_000

log = structlog.get_logger()


async def authenticate(relay: Relay, kind: TokenKind, token: str) -> Principal:
    """Return the principal a token of that kind belongs to; an `API_KEY` must be one for ingest.

    Raises:
        Unauthenticated: when it is none, whatever the reason.
    """
    if kind is TokenKind.JWT:
        return await _by_jwt(relay, token)
    if kind is TokenKind.API_KEY:
        return await _by_api_key(relay, token, KeyKind.INGEST)
    if kind is TokenKind.LISTENING_KEY:
        return await _by_api_key(relay, token, KeyKind.LISTEN)
    return await _by_tool_secret(relay, token)


async def identify(relay: Relay, token: str) -> Principal:
    """Return the principal of a listener, who may bring a JWT or an API key for listening.

    Raises:
        Unauthenticated: when the token is neither.
    """
    if token.startswith(API_KEY_PREFIX):
        return await _by_api_key(relay, token, KeyKind.LISTEN)
    return await authenticate(relay, TokenKind.JWT, token)


async def is_revoked(relay: Relay, principal: Principal) -> bool:
    """Tell whether the token of a caller that waited for events would not be accepted any more."""
    has_expired = principal.expires_at is not None and principal.expires_at <= time.time()
    return has_expired or bool(await revoked(relay, [principal]))


async def revoked(relay: Relay, principals: Collection[Principal]) -> list[Principal]:
    """Return those whose tokens would not be accepted any more for listening, whenever they expire.

    Three queries, however many there are; the caller sees to it that there are not too many.

    Raises:
        Overloaded: when that cannot be told just now.
    """
    people = {one.person for one in principals}
    of_keys = {one.credential for one in principals if one.kind is TokenKind.API_KEY}

    def find() -> list[Principal]:
        versions, keys = users.token_versions(people), api_keys.among(of_keys, KeyKind.LISTEN)

        def is_valid(one: Principal) -> bool:
            if one.kind is TokenKind.API_KEY:
                return one.credential in keys and one.person in versions
            return str(versions.get(one.person)) == one.credential

        return [one for one in principals if not is_valid(one)]

    def unit() -> list[Principal]:
        if not find():
            return []
        readiness.insist_on_completeness()
        return find()  # again, as in `readiness.surely`

    return await relay.database.read(unit)


async def _by_jwt(relay: Relay, token: str) -> Principal:
    claims = relay.tokens.verify(token)
    user = await relay.database.read(lambda: readiness.surely(lambda: users.get(claims.user_id)))
    if user is None or user.token_version != claims.token_version or user.status != UserStatus.ACTIVE:
        raise Unauthenticated("Invalid token")
    return Principal(
        TokenKind.JWT,
        user.organization_id,
        user.id,
        Role(user.role),
        claims.expires_at,
        str(user.token_version),
        claims.signed_in_at,
    )


async def _by_api_key(relay: Relay, token: str, wanted: KeyKind) -> Principal:
    hashed = digest(token)
    key = await relay.database.read(lambda: readiness.surely(lambda: api_keys.by_digest(hashed)))
    if key is None or not KeyKind(key.kind).opens(wanted):
        raise Unauthenticated("Invalid API key")
    _note_use(relay, key.id)
    expires_at = None if key.expires_at is None else from_wire(key.expires_at).timestamp()
    return Principal(TokenKind.API_KEY, key.organization_id, key.user_id, expires_at=expires_at, credential=hashed)


def _note_use(relay: Relay, key_id: str) -> None:
    """Have the last use of a key noted, unless it was a short time ago; the request does not wait for it."""
    noted, now = relay.noted_keys, time.monotonic()
    if now - noted.get(key_id, -_NOTED_SECONDS) < _NOTED_SECONDS:
        return
    if len(noted) >= _MOST_NOTED:
        noted.clear()
    noted[key_id] = now
    relay.background.start(_mark_used(relay, key_id))


async def _mark_used(relay: Relay, key_id: str) -> None:
    before = later(-_NOTED_SECONDS)
    try:
        await relay.database.write(lambda: api_keys.mark_used(key_id, before))
    except Exception as error:  # whatever it is, the request itself needs no more than to read
        log.warning("api_key.use_not_noted", reason=str(error))


async def _mark_secret_used(relay: Relay, secret_id: str) -> None:
    before = later(-_NOTED_SECONDS)
    try:
        await relay.database.write(lambda: tool_secrets.mark_used(secret_id, before))
    except RelayError as error:  # the tool call is served all the same
        log.warning("tool_secret.use_not_noted", reason=str(error))


async def _by_tool_secret(relay: Relay, token: str) -> Principal:
    hashed = digest(token)
    found = await relay.database.read(lambda: readiness.surely(lambda: tool_secrets.find(hashed)))
    if found is None:
        raise Unauthenticated("Invalid tool secret")
    secret_id, organization_id, last_used_at = found
    if last_used_at is None or last_used_at < later(-_NOTED_SECONDS):
        relay.background.start(_mark_secret_used(relay, secret_id))
    return Principal(TokenKind.TOOL_SECRET, organization_id)
