"""What the person at the command line does: organizations, users, keys, numbers, providers."""

import secrets
from collections.abc import Callable
from functools import partial

from pydantic import SecretStr

from actions.agent_secret import begin_rotation, write_rotated_secret
from actions.api_keys import regenerate_api_key, show_api_key
from actions.control_access import existing_user, revoke_every_key
from actions.relay import Relay
from domain.audit import COMMAND_LINE, AuditAction
from domain.errors import InvalidRequest, NotFound
from domain.phones import is_region, to_e164
from domain.principals import Role
from domain.texts import one_line
from persistence import (
    agents,
    api_keys,
    audit,
    contacts,
    known_addresses,
    organizations,
    phone_numbers,
    sms_configs,
    tool_secrets,
    users,
)
from persistence.models import Contact, Organization, PhoneNumber, ToolSecret, User


async def create_organization(relay: Relay, name: str, default_region: str | None = None) -> Organization:
    """Create an organization whose national numbers are read as numbers of `default_region` (`CA`).

    Raises:
        InvalidRequest: when the name is blank, too long or taken, or there is no such region.
    """
    region, called = _region(default_region), one_line(name, "name")

    def unit() -> Organization:
        if organizations.by_name(called) is not None:
            raise InvalidRequest(f"There is an organization {called} already")
        return organizations.add(called, region)

    return await relay.database.write(unit)


async def set_default_region(relay: Relay, organization_id: str, default_region: str | None) -> None:
    """Change the region in which the organization's national numbers are read."""
    region = _region(default_region)

    def unit() -> None:
        organizations.set_region(organization_id, region)
        audit.record(organization_id, AuditAction.REGION_CHANGED, COMMAND_LINE, details={"region": region})

    await relay.database.write(unit)


async def add_phone_number(
    relay: Relay, organization_id: str, number: str, *, label: str | None = None, is_default: bool = False
) -> PhoneNumber:
    """Give the organization a number of its own.

    Raises:
        InvalidRequest: when `number` is no phone number.
    """
    organization = await relay.database.read(lambda: organizations.get(organization_id))
    e164 = to_e164(number, organization.default_region if organization else None)

    def unit() -> PhoneNumber:
        added = phone_numbers.add(organization_id, e164, label=label, is_default=is_default)
        details = {"number": e164, "label": label, "isDefault": is_default}
        audit.record(organization_id, AuditAction.NUMBER_ADDED, COMMAND_LINE, subject=added.id, details=details)
        return added

    return await relay.database.write(unit)


async def add_contact(relay: Relay, organization_id: str, number: str, name: str) -> Contact:
    """Add a contact, or give a nameless one its name.

    Raises:
        InvalidRequest: when `number` is no phone number or the name is blank.
    """
    organization = await relay.database.read(lambda: organizations.get(organization_id))
    e164 = to_e164(number, organization.default_region if organization else None)
    called = one_line(name, "name")
    return await relay.database.write(lambda: contacts.upsert(organization_id, e164, called), of=organization_id)


async def configure_sms(relay: Relay, organization_id: str, provider: str, credentials: dict[str, object]) -> None:
    """Send the organization's texts through `provider` with `credentials`.

    Raises:
        InvalidRequest: when the provider is unknown or the credentials are not what it needs.
    """
    relay.text_provider(provider, credentials)
    sealed = relay.vault.seal_document(credentials)

    def unit() -> None:
        sms_configs.put(organization_id, provider=provider, credentials_sealed=sealed)
        details = {"provider": provider, "fields": sorted(credentials)}
        audit.record(organization_id, AuditAction.SMS_CHANGED, COMMAND_LINE, details=details)

    await relay.database.write(unit)


async def create_user(
    relay: Relay, organization_id: str, *, email: str, full_name: str, password: SecretStr, role: Role
) -> User:
    """Create a user.

    Raises:
        InvalidRequest: when somebody has that address already, or it is none.
    """
    address, called = one_line(email, "email address").lower(), one_line(full_name, "name")
    if not 0 < address.find("@") < len(address) - 1:
        raise InvalidRequest(f"{address} is not an email address")
    password_hash = await relay.passwords.hash(password)

    def unit() -> User:
        if users.by_email(address) is not None:
            raise InvalidRequest(f"There is a user {address} already")
        created = users.add(
            organization_id,
            email=address,
            full_name=called,
            password_hash=password_hash,
            role=role.value,
        )
        details = {"role": role.value}
        audit.record(organization_id, AuditAction.USER_CREATED, COMMAND_LINE, subject=created.id, details=details)
        return created

    return await relay.database.write(unit)


async def change_password(relay: Relay, email: str, password: SecretStr, *, revoke_keys: bool = False) -> list[str]:
    """Give the user another password, and make every token they have worthless; with `revoke_keys` every API key too.

    Returns:
        the names of the API keys that still work.

    Raises:
        NotFound: when there is no such user.
        InvalidRequest: when the password is too short or too long.
    """
    password_hash = await relay.passwords.hash(password)

    def change(user: User) -> None:
        users.replace_password_hash(user.organization_id, user.id, password_hash)
        users.raise_token_version(user.organization_id, user.id)
        # Whoever knew the old password may have signed in from anywhere.
        known_addresses.forget(user.id)
        audit.record(user.organization_id, AuditAction.PASSWORD_CHANGED, COMMAND_LINE, subject=user.id)

    return await _change_and_count_keys(relay, email, change, revoke_keys)


async def sign_out_user(relay: Relay, email: str, *, revoke_keys: bool = False) -> list[str]:
    """Make every token the user has worthless, with `revoke_keys` every API key too; return the keys that still work.

    Raises:
        NotFound: when there is no such user.
    """

    def change(user: User) -> None:
        users.raise_token_version(user.organization_id, user.id)
        audit.record(user.organization_id, AuditAction.SIGNED_OUT, COMMAND_LINE, subject=user.id)

    return await _change_and_count_keys(relay, email, change, revoke_keys)


async def issue_token(relay: Relay, email: str, seconds: float) -> SecretStr:
    """Sign a token for the user with that address.

    Raises:
        NotFound: when there is none.
    """
    user = await relay.database.read(lambda: existing_user(email))
    return SecretStr(relay.tokens.issue(user.id, user.token_version, seconds))


async def api_key_of(relay: Relay, organization_id: str, user_id: str, *, renew: bool = False) -> SecretStr:
    """Return the user's API key, made on first use or when `renew` is asked for; an earlier key then stops working."""
    get = regenerate_api_key if renew else show_api_key
    return await get(relay, organization_id, user_id, COMMAND_LINE)


async def new_tool_secret(relay: Relay, organization_id: str) -> SecretStr:
    """Make a fresh tool secret and write it to ElevenLabs if it is kept there.

    The one before it keeps working for the overlap, or until ElevenLabs has taken the new one.
    """
    secret = SecretStr(secrets.token_hex(32))
    unit = partial(begin_rotation, relay, organization_id, secret, COMMAND_LINE)
    if await relay.database.write(unit, of=organization_id):
        await write_rotated_secret(relay, organization_id)
    return secret


async def tool_secret_problem(relay: Relay, organization_id: str) -> str | None:
    """Return why ElevenLabs does not have the newest tool secret, or None if it has it or need not have it."""

    def unit() -> str | None:
        kept = agents.workspace(organization_id)
        if kept is None or kept.secret_id is None or kept.secret_sealed is None:
            return None
        return kept.secret_error or "it has not been written yet"

    return await relay.database.read(unit)


async def list_tool_secrets(relay: Relay, organization_id: str) -> list[ToolSecret]:
    """Return the tool secrets that work, the newest first."""
    return await relay.database.read(lambda: tool_secrets.living(organization_id))


async def end_tool_secrets(relay: Relay, organization_id: str, secret_id: str | None = None) -> int:
    """End one tool secret at once, or every replaced one; return how many ended.

    Raises:
        NotFound: if the organization has no such secret.
    """

    def unit() -> int:
        ended = tool_secrets.end(organization_id, secret_id)
        if secret_id is not None and not ended:
            raise NotFound(f"There is no tool secret {secret_id}. `manage.py key tool-secrets` lists them.")
        if ended:
            audit.record(organization_id, AuditAction.TOOL_SECRET_ENDED, COMMAND_LINE, details={"ended": ended})
        return ended

    return await relay.database.write(unit, of=organization_id)


async def _change_and_count_keys(
    relay: Relay, email: str, change: Callable[[User], None], revoke_keys: bool
) -> list[str]:
    def unit() -> list[str]:
        user = existing_user(email)
        change(user)
        if revoke_keys:
            revoke_every_key(user)
        return [key.name for key in api_keys.everyone(user.organization_id, user.id)]

    return await relay.database.write(unit)


def _region(code: str | None) -> str | None:
    region = code.upper() if code else None
    if region is not None and not is_region(region):
        raise InvalidRequest(f"{code} is not a region with a numbering plan; use two letters such as CA or GB")
    return region
