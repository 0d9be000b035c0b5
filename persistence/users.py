"""Users: the people who sign in."""

from collections.abc import Collection

from domain.statuses import UserStatus
from persistence.models import User
from persistence.statements import Among, Lookup

_BY_ID = Lookup(User, "id")
_EMAILS = Among(User, "id", "id", "email", "status")
_VERSIONS = Among(User, "id", "id", "token_version", "status")


def add(organization_id: str, *, email: str, full_name: str, password_hash: str, role: str) -> User:
    """Create a user; `email` must be unused and in lower case."""
    return User.create(
        organization=organization_id, email=email, full_name=full_name, password_hash=password_hash, role=role
    )


def get(user_id: str) -> User | None:
    """Return the user of that id; the lookup by which a signed token is believed."""
    return _BY_ID.find(user_id)


def token_versions(user_ids: Collection[str]) -> dict[str, int]:
    """Return the token version of each of these users that is active; whose they are, their tokens have told."""
    active = UserStatus.ACTIVE
    return {user_id: version for user_id, version, status in _VERSIONS.find(user_ids) if status == active}


def in_organization(organization_id: str, user_id: str) -> User | None:
    """Return the organization's user of that id."""
    return User.get_or_none(User.organization == organization_id, User.id == user_id)


def everyone(organization_id: str | None = None, *, removed: bool = False) -> list[User]:
    """Return the users of an organization, or of all of them, oldest first; with `removed` also those."""
    query = User.select()
    if organization_id is not None:
        query = query.where(User.organization == organization_id)
    if not removed:
        query = query.where(User.status != UserStatus.REMOVED.value)
    return list(query.order_by(User.organization, User.id))


def emails(user_ids: Collection[str]) -> dict[str, str]:
    """Return the addresses that those of these users sign in with who were not removed."""
    return {user_id: email for user_id, email, status in _EMAILS.find(user_ids) if status != UserStatus.REMOVED}


def active_with_role(organization_id: str, role: str) -> int:
    """Return how many active users of the organization have that role."""
    query = User.select().where(User.organization == organization_id, User.role == role)
    return int(query.where(User.status == UserStatus.ACTIVE.value).count())


def set_status(organization_id: str, user_id: str, status: UserStatus) -> None:
    """Let the user sign in, or not."""
    User.update(status=status.value).where(User.organization == organization_id, User.id == user_id).execute()


def set_role(organization_id: str, user_id: str, role: str) -> None:
    """Change what the user may do."""
    User.update(role=role).where(User.organization == organization_id, User.id == user_id).execute()


def anonymize(organization_id: str, user_id: str) -> None:
    """Keep the row of a removed user, because calls and notes refer to it, and nothing of the person.

    The email address is free again. `.invalid` is a domain that never exists (RFC 2606).
    """
    User.update(
        status=UserStatus.REMOVED.value,
        email=f"{user_id}@removed.invalid",
        full_name="Removed user",
        password_hash="",
    ).where(User.organization == organization_id, User.id == user_id).execute()


def raise_token_version(organization_id: str, user_id: str) -> None:
    """Make every token the user has worthless."""
    version = User.update(token_version=User.token_version + 1)
    version.where(User.organization == organization_id, User.id == user_id).execute()


def replace_password_hash(organization_id: str, user_id: str, password_hash: str) -> None:
    """Store another hash for the user's password."""
    User.update(password_hash=password_hash).where(User.organization == organization_id, User.id == user_id).execute()


def by_email(email: str) -> User | None:
    """Return the user who signs in with `email`."""
    return User.get_or_none(User.email == email.strip().lower())


def first_with_role(organization_id: str, role: str) -> User | None:
    """Return the organization's oldest active user with `role`."""
    query = User.select().where(User.organization == organization_id, User.role == role)
    return query.where(User.status == UserStatus.ACTIVE.value).order_by(User.id).first()
