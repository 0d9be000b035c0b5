"""A user's API key: made on first use, the same until it is regenerated."""

import secrets

from pydantic import SecretStr

from actions.authenticate import API_KEY_PREFIX
from actions.relay import Relay
from actions.vault import digest
from domain.audit import Actor, AuditAction
from domain.errors import NotFound
from persistence import api_keys, audit


async def show_api_key(relay: Relay, organization_id: str, user_id: str, actor: Actor) -> SecretStr:
    """Return the user's API key, made if there is none; two who ask at once get the same."""

    def unit() -> SecretStr:
        key = _fresh()
        made = api_keys.add(organization_id, user_id, digest=digest(key), sealed=relay.vault.seal(key))
        action = AuditAction.API_KEY_CREATED if made else AuditAction.API_KEY_READ
        audit.record(organization_id, action, actor, subject=user_id)
        return _present(relay, organization_id, user_id)

    return await relay.database.write(unit)


async def regenerate_api_key(relay: Relay, organization_id: str, user_id: str, actor: Actor) -> SecretStr:
    """Return a new API key; the one before it stops working."""

    def unit() -> SecretStr:
        key = _fresh()
        api_keys.put(organization_id, user_id, digest=digest(key), sealed=relay.vault.seal(key))
        audit.record(organization_id, AuditAction.API_KEY_REGENERATED, actor, subject=user_id)
        return SecretStr(key)

    return await relay.database.write(unit)


def _fresh() -> str:
    return API_KEY_PREFIX + secrets.token_hex(18)


def _present(relay: Relay, organization_id: str, user_id: str) -> SecretStr:
    known = api_keys.of_user(organization_id, user_id)
    if known is None:
        raise NotFound("There is no such user in this organization")
    return relay.vault.open(known.sealed)
