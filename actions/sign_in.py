"""Signing in with a password, staying signed in, and signing out everywhere."""

from dataclasses import dataclass, replace

import structlog
from pydantic import SecretStr

from actions.relay import Relay, Rules
from domain.addresses import network_of
from domain.audit import Actor, AuditAction, mask_email
from domain.errors import RateLimited, Unauthenticated
from domain.principals import Role
from domain.statuses import UserStatus
from domain.times import from_wire, later, now
from keyring.vault import digest
from persistence import audit, known_addresses, readiness, sign_in_attempts, users
from persistence.models import User

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """A person who signs in, as others may see them."""

    id: str
    organization_id: str
    email: str
    full_name: str
    role: Role


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A fresh token, until when it is good (wire form), and whose it is."""

    token: SecretStr
    expires_at: str
    account: Account


async def sign_in(relay: Relay, email: str, password: SecretStr, actor: Actor) -> SignedIn:
    """Exchange an address and a password for a token.

    Raises:
        Unauthenticated: when there is no such user, they may not sign in, or the password is another; the answer and
            the time it takes are the same.
        RateLimited: when there were too many attempts for this account or from this address.
        Overloaded: while a dump is being restored.
    """
    account = email.strip().lower()
    keys = _Keys.of(account, actor.client)
    await _insist_on_patience(relay, keys, account)
    found = await relay.database.read(lambda: users.by_email(account))
    user = found if found is not None and found.status == UserStatus.ACTIVE else None
    is_right = await relay.passwords.match(password, user.password_hash if user else None)
    if user is None or not is_right:
        await _note_failure(relay, found, actor)
        raise Unauthenticated("Wrong email address or password")
    fresh = await relay.passwords.hash(password) if relay.passwords.is_outdated(user.password_hash) else None
    await relay.database.write(lambda: _welcome(user, keys, replace(actor, user_id=user.id), fresh))
    return _signed_in(relay, user, relay.tokens.now())


async def refresh(relay: Relay, organization_id: str, user_id: str, signed_in_at: float) -> SignedIn:
    """Return a token that is valid for longer, for the bearer of a valid one; `signed_in_at` is in Unix seconds.

    Raises:
        Unauthenticated: when the session is over: the user signed in longer ago than a session lasts.
    """
    if signed_in_at + relay.rules.session_lifetime <= relay.tokens.now():
        raise Unauthenticated("The session is over, please sign in again")
    return _signed_in(relay, await _known(relay, organization_id, user_id), signed_in_at)


async def account_of(relay: Relay, organization_id: str, user_id: str) -> Account:
    """Return the account of the user whose token was believed.

    Raises:
        Unauthenticated: when the user has gone since.
    """
    return _account(await _known(relay, organization_id, user_id))


async def sign_out(relay: Relay, organization_id: str, user_id: str, actor: Actor) -> None:
    """Make every token of the user worthless."""

    def unit() -> None:
        users.raise_token_version(organization_id, user_id)
        audit.record(organization_id, AuditAction.SIGNED_OUT, actor, subject=user_id)

    await relay.database.write(unit)


async def _insist_on_patience(relay: Relay, keys: "_Keys", account: str) -> None:
    try:
        await relay.database.write(lambda: _take(keys, account, relay.rules))
    except RateLimited:
        # Nothing that was typed: some type their password where the address belongs.
        if refusals := relay.repetition.count("sign_in.throttled"):
            log.warning("sign_in.throttled", refusals=refusals)
        raise


def _signed_in(relay: Relay, user: User, signed_in_at: float) -> SignedIn:
    left = signed_in_at + relay.rules.session_lifetime - relay.tokens.now()
    lifetime = max(1.0, min(relay.rules.token_lifetime, left))
    token = relay.tokens.issue(user.id, user.token_version, lifetime, signed_in_at)
    return SignedIn(SecretStr(token), later(lifetime), _account(user))


def _account(user: User) -> Account:
    return Account(user.id, user.organization_id, user.email, user.full_name, Role(user.role))


async def _known(relay: Relay, organization_id: str, user_id: str) -> User:
    user = await relay.database.read(lambda: users.in_organization(organization_id, user_id))
    if user is None:
        raise Unauthenticated("Invalid token")
    return user


# Units.


def _take(keys: "_Keys", account: str, rules: Rules) -> None:
    readiness.insist_on_completeness()  # a user who has yet to come would be told that the password is wrong
    # Counted before the password is looked at, so that many guesses at once are counted like many in a row.
    limits = {keys.pair: rules.sign_in_attempts_per_account_and_address}
    if not _is_known(keys, account):
        limits[keys.account] = rules.sign_in_attempts_per_account
    limits[keys.address] = rules.sign_in_attempts_per_address
    for key, limit in limits.items():
        free_at = sign_in_attempts.take(key, limit, rules.sign_in_window)
        if free_at is not None:
            seconds = (from_wire(free_at) - from_wire(now())).total_seconds()
            raise RateLimited("Too many attempts to sign in, please try again later", max(1, round(seconds)))


def _is_known(keys: "_Keys", account: str) -> bool:
    # Otherwise whoever guesses from elsewhere would lock the owner out.
    user = users.by_email(account)
    return user is not None and known_addresses.is_known(user.id, keys.pair)


def _welcome(user: User, keys: "_Keys", actor: Actor, fresh_hash: str | None) -> None:
    sign_in_attempts.forget(keys.pair)
    # What others have guessed stays counted: only this attempt is taken back.
    if not known_addresses.is_known(user.id, keys.pair):
        sign_in_attempts.give_back(keys.account)
    sign_in_attempts.give_back(keys.address)
    known_addresses.remember(user.organization_id, user.id, keys.pair)
    if fresh_hash is not None:
        users.replace_password_hash(user.organization_id, user.id, fresh_hash)
    audit.record(user.organization_id, AuditAction.SIGNED_IN, actor, subject=user.id)


async def _note_failure(relay: Relay, user: User | None, actor: Actor) -> None:
    # The address of a known account, never what was typed: some type their password where the address belongs.
    masked = mask_email(user.email if user else "")
    organization_id, subject = (user.organization_id, user.id) if user else (None, None)
    await relay.database.write(
        lambda: audit.record(
            organization_id, AuditAction.SIGN_IN_FAILED, actor, subject=subject, details={"email": masked}
        )
    )
    log.warning("sign_in.failed", email=masked)


# Whose attempts are counted together.


@dataclass(frozen=True, slots=True)
class _Keys:
    """Digests of an account, an address, and both together, so that the counters tell nobody who signs in here."""

    account: str
    address: str
    pair: str

    @classmethod
    def of(cls, account: str, client: str | None) -> "_Keys":
        network = network_of(client)
        return cls(
            digest(f"account {account}"), digest(f"address {network}"), digest(f"account {account} address {network}")
        )
