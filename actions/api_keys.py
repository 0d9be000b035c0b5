"""A user's API keys: the first one, made on first use and shown again, and others with a name, a kind and an end."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from pydantic import SecretStr

from actions.authenticate import API_KEY_PREFIX
from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.errors import InvalidRequest, NotFound
from domain.principals import KeyKind
from domain.times import from_wire, later, now, to_wire
from keyring.vault import digest
from persistence import api_keys, audit
from persistence.api_keys import FIRST
from persistence.models import ApiKey

MOST_PER_USER = 25
MAX_OVERLAP_SECONDS = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its user may see it; times in wire form."""

    id: str
    name: str
    kind: KeyKind
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    previous_expires_at: str | None


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A key that was made just now, and its secret, which is not shown again."""

    key: Key
    secret: SecretStr


async def show_api_key(relay: Relay, organization_id: str, user_id: str, actor: Actor) -> SecretStr:
    """Return the user's first API key, made if there is none; two who ask at once get the same."""

    def unit() -> SecretStr:
        key = _fresh()
        made = api_keys.add(organization_id, user_id, digest=digest(key), sealed=relay.vault.seal(key))
        action = AuditAction.API_KEY_CREATED if made else AuditAction.API_KEY_READ
        audit.record(organization_id, action, actor, subject=user_id, details={"name": FIRST})
        return _present(relay, organization_id, user_id)

    return await relay.database.write(unit)


async def regenerate_api_key(
    relay: Relay, organization_id: str, user_id: str, actor: Actor, overlap: float | None = None
) -> SecretStr:
    """Return a new first API key; the one before it stops working, after `overlap` seconds (None: as the setting says).

    Raises:
        InvalidRequest: when the overlap is too long.
    """

    def unit() -> SecretStr:
        key = _fresh()
        hashed, sealed = digest(key), relay.vault.seal(key)
        if api_keys.add(organization_id, user_id, digest=hashed, sealed=sealed):
            audit.record(
                organization_id, AuditAction.API_KEY_REGENERATED, actor, subject=user_id, details={"name": FIRST}
            )
        else:
            known = api_keys.of_user(organization_id, user_id)
            if known is None:
                raise NotFound("There is no such user in this organization")
            _renew(relay, known, actor, digest=hashed, sealed=sealed, overlap=overlap)
        return SecretStr(key)

    return await relay.database.write(unit)


async def list_api_keys(relay: Relay, organization_id: str, user_id: str) -> list[Key]:
    """Return the user's keys, oldest first, without their secrets."""
    found = await relay.database.read(lambda: api_keys.everyone(organization_id, user_id))
    return [_described(key) for key in found]


async def create_api_key(
    relay: Relay,
    organization_id: str,
    user_id: str,
    actor: Actor,
    *,
    name: str,
    kind: KeyKind,
    expires_at: str | None = None,
) -> FreshKey:
    """Make another key for the user; `expires_at` is RFC 3339, None for a key that ends when it is revoked.

    Raises:
        InvalidRequest: when the name is taken, the end is not in the future, or there are too many keys.
    """
    key, until = _fresh(), _end(expires_at)
    if name == FIRST:
        raise InvalidRequest(f"The name {FIRST} is the first API key's; choose another")

    def unit() -> ApiKey | None:
        api_keys.remove_expired(organization_id, user_id)
        if len(api_keys.everyone(organization_id, user_id)) >= MOST_PER_USER:
            raise InvalidRequest(f"A user has at most {MOST_PER_USER} API keys; revoke one first")
        if not api_keys.add(
            organization_id, user_id, digest=digest(key), sealed="", name=name, kind=kind, expires_at=until
        ):
            raise InvalidRequest(f"There is an API key {name} already")
        details = {"name": name, "kind": kind.value, "expiresAt": until}
        audit.record(organization_id, AuditAction.API_KEY_CREATED, actor, subject=user_id, details=details)
        return api_keys.of_user(organization_id, user_id, name)

    made = await relay.database.write(unit)
    if made is None:
        raise NotFound("The API key was revoked at once")
    return FreshKey(_described(made), SecretStr(key))


async def renew_api_key(
    relay: Relay, organization_id: str, user_id: str, key_id: str, actor: Actor, overlap: float | None = None
) -> FreshKey:
    """Replace the secret of a key; the one before stops working, after `overlap` seconds (None: as the setting says).

    Name, kind and end stay.

    Raises:
        NotFound: when the user has no such key.
        InvalidRequest: when the overlap is too long.
    """
    secret = _fresh()

    def unit() -> ApiKey:
        known = _existing(organization_id, user_id, key_id)
        sealed = relay.vault.seal(secret) if known.name == FIRST else ""
        _renew(relay, known, actor, digest=digest(secret), sealed=sealed, overlap=overlap)
        return _existing(organization_id, user_id, key_id)

    return FreshKey(_described(await relay.database.write(unit)), SecretStr(secret))


async def revoke_api_key(relay: Relay, organization_id: str, user_id: str, key_id: str, actor: Actor) -> None:
    """Revoke one of the user's keys.

    Raises:
        NotFound: when the user has no such key.
    """

    def unit() -> None:
        revoke(organization_id, user_id, [_existing(organization_id, user_id, key_id)], actor)

    await relay.database.write(unit)


def revoke(organization_id: str, user_id: str, keys: Collection[ApiKey], actor: Actor) -> None:
    """Revoke these keys of the user, in a unit."""
    api_keys.remove(organization_id, user_id, [key.id for key in keys])
    for key in keys:
        details = {"name": key.name}
        audit.record(organization_id, AuditAction.API_KEY_REVOKED, actor, subject=user_id, details=details)


def _renew(relay: Relay, key: ApiKey, actor: Actor, *, digest: str, sealed: str, overlap: float | None) -> None:
    seconds = relay.rules.api_key_overlap if overlap is None else overlap
    if overlap is not None and not 0 <= overlap <= MAX_OVERLAP_SECONDS:
        raise InvalidRequest(f"An overlap takes at most {MAX_OVERLAP_SECONDS // 60} minutes")
    until = min(filter(None, (later(seconds), key.expires_at))) if seconds else None
    api_keys.renew(key.id, digest=digest, sealed=sealed, previous_until=until)
    details = {"name": key.name} | ({"previousExpiresAt": until} if until else {})
    audit.record(key.organization_id, AuditAction.API_KEY_REGENERATED, actor, subject=key.user_id, details=details)


def _end(expires_at: str | None) -> str | None:
    until = None if expires_at is None else to_wire(from_wire(expires_at))
    if until is not None and until <= now():
        raise InvalidRequest("Invalid field: expiresAt is not in the future")
    return until


def _existing(organization_id: str, user_id: str, key_id: str) -> ApiKey:
    found = api_keys.get(organization_id, user_id, key_id)
    if found is None:
        raise NotFound("API key not found")
    return found


def _described(key: ApiKey) -> Key:
    overlap = key.previous_expires_at
    return Key(
        id=key.id,
        name=key.name,
        kind=KeyKind(key.kind),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        previous_expires_at=overlap if overlap is not None and overlap > now() else None,
    )


def _fresh() -> str:
    return API_KEY_PREFIX + secrets.token_hex(18)


def _present(relay: Relay, organization_id: str, user_id: str) -> SecretStr:
    known = api_keys.of_user(organization_id, user_id)
    if known is None:
        raise NotFound("There is no such user in this organization")
    return relay.vault.open(known.sealed)
