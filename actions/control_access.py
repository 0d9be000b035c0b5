"""Who may still get in: disabling, enabling and removing users, their roles, and their API keys by name."""

from pydantic import SecretStr

from actions.api_keys import (
    FreshKey,
    Key,
    create_api_key,
    list_api_keys,
    regenerate_api_key,
    renew_api_key,
    revoke,
    show_api_key,
)
from actions.availability import leave
from actions.relay import Relay
from domain.audit import COMMAND_LINE, AuditAction
from domain.errors import InvalidRequest, NotFound
from domain.lengths import LENGTHS
from domain.principals import KeyKind, Role
from domain.statuses import UserStatus
from domain.texts import one_line
from persistence import api_keys, audit, known_addresses, outbox, users
from persistence.api_keys import FIRST
from persistence.models import ApiKey, User


async def disable_user(relay: Relay, email: str, *, force: bool = False) -> None:
    """Keep the user out: no password, token, API key or socket of theirs works until they are enabled again.

    Raises:
        NotFound: when there is no such user.
        InvalidRequest: when it is the organization's last active superadmin, unless `force`.
    """

    def unit() -> None:
        user = existing_user(email)
        _insist_on_another_superadmin(user, force)
        users.set_status(user.organization_id, user.id, UserStatus.DISABLED)
        users.raise_token_version(user.organization_id, user.id)
        audit.record(user.organization_id, AuditAction.USER_DISABLED, COMMAND_LINE, subject=user.id)

    await relay.database.write(unit)


async def enable_user(relay: Relay, email: str) -> None:
    """Let a disabled user in again; their API keys work again, their earlier tokens do not.

    Raises:
        NotFound: when there is no such user.
    """

    def unit() -> None:
        user = existing_user(email)
        users.set_status(user.organization_id, user.id, UserStatus.ACTIVE)
        audit.record(user.organization_id, AuditAction.USER_ENABLED, COMMAND_LINE, subject=user.id)

    await relay.database.write(unit)


async def remove_user(relay: Relay, email: str, *, force: bool = False) -> int:
    """Remove the user; return how many API keys went. What they wrote and the audit log stay, the address is free.

    Raises:
        NotFound: when there is no such user.
        InvalidRequest: when it is the organization's last active superadmin, unless `force`.
    """

    def unit() -> int:
        user = existing_user(email)
        _insist_on_another_superadmin(user, force)
        keys = revoke_every_key(user)
        known_addresses.forget(user.id)
        leave(user.organization_id, user.id)
        users.anonymize(user.organization_id, user.id)
        users.raise_token_version(user.organization_id, user.id)
        audit.record(user.organization_id, AuditAction.USER_REMOVED, COMMAND_LINE, subject=user.id)
        return len(keys)

    return await relay.database.write(unit)


async def change_role(relay: Relay, email: str, role: Role, *, force: bool = False) -> None:
    """Change what the user may do; it counts from their next request on.

    Raises:
        NotFound: when there is no such user.
        InvalidRequest: when it is the organization's last active superadmin, unless `force`.
    """

    def unit() -> None:
        user = existing_user(email)
        if role is not Role.SUPERADMIN:
            _insist_on_another_superadmin(user, force)
        users.set_role(user.organization_id, user.id, role.value)
        details = {"from": user.role, "to": role.value}
        audit.record(user.organization_id, AuditAction.ROLE_CHANGED, COMMAND_LINE, subject=user.id, details=details)

    await relay.database.write(unit)


async def first_key(relay: Relay, email: str, *, renew: bool = False, overlap: float | None = None) -> SecretStr:
    """Return the first API key of the user with that address, made on first use, or renewed.

    Raises:
        NotFound: when there is no such user.
    """
    user = await relay.database.read(lambda: existing_user(email))
    if renew:
        return await regenerate_api_key(relay, user.organization_id, user.id, COMMAND_LINE, overlap)
    return await show_api_key(relay, user.organization_id, user.id, COMMAND_LINE)


async def named_key(
    relay: Relay,
    email: str,
    name: str,
    *,
    kind: KeyKind = KeyKind.BOTH,
    expires_at: str | None = None,
    renew: bool = False,
    overlap: float | None = None,
) -> FreshKey:
    """Make an API key of that name for the user, or renew it.

    Raises:
        NotFound: when there is no such user, or no such key to renew.
        InvalidRequest: when the name is taken or `expires_at` is not in the future.
    """
    user = await relay.database.read(lambda: existing_user(email))
    organization_id, called = user.organization_id, one_line(name, "name", LENGTHS["label"])
    if renew:
        known = await relay.database.read(lambda: _key_of(user, called))
        return await renew_api_key(relay, organization_id, user.id, known.id, COMMAND_LINE, overlap)
    return await create_api_key(
        relay, organization_id, user.id, COMMAND_LINE, name=called, kind=kind, expires_at=expires_at
    )


async def keys_of(relay: Relay, email: str) -> list[Key]:
    """Return the user's API keys, oldest first.

    Raises:
        NotFound: when there is no such user.
    """
    user = await relay.database.read(lambda: existing_user(email))
    return await list_api_keys(relay, user.organization_id, user.id)


async def revoke_keys(relay: Relay, email: str, name: str | None) -> list[str]:
    """Revoke the user's API key of that name, or (None) all of them; return the names of those that went.

    Raises:
        NotFound: when there is no such user or key.
    """

    def unit() -> list[str]:
        user = existing_user(email)
        if name is None:
            return [key.name for key in revoke_every_key(user)]
        revoke(user.organization_id, user.id, [_key_of(user, name)], COMMAND_LINE)
        return [name]

    return await relay.database.write(unit)


# Units.


def existing_user(email: str) -> User:
    """Return the user with that address, in a unit.

    Raises:
        NotFound: when there is none.
    """
    user = users.by_email(email)
    if user is None or user.status == UserStatus.REMOVED:
        raise NotFound(f"There is no user {email}")
    return user


def revoke_every_key(user: User) -> list[ApiKey]:
    """Revoke every API key of the user, in a unit; return those that still worked."""
    keys = api_keys.everyone(user.organization_id, user.id)
    revoke(user.organization_id, user.id, keys, COMMAND_LINE)
    api_keys.remove_expired(user.organization_id, user.id)
    return keys


def _key_of(user: User, name: str) -> ApiKey:
    known = api_keys.of_user(user.organization_id, user.id, name)
    if known is None:
        raise NotFound(f"{user.email} has no API key {name}; the first one is called {FIRST}")
    return known


def _insist_on_another_superadmin(user: User, force: bool) -> None:
    if force or user.role != Role.SUPERADMIN or user.status != UserStatus.ACTIVE:
        return
    # Two superadmins who are disabled at once wait for each other here.
    outbox.hold(user.organization_id)
    if users.active_with_role(user.organization_id, Role.SUPERADMIN.value) <= 1:
        raise InvalidRequest(f"{user.email} is the last active superadmin of the organization; --force does it anyway")
