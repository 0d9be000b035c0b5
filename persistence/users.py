"""Users: the people who sign in."""

from persistence.models import User


def add(organization_id: str, *, email: str, full_name: str, password_hash: str, role: str) -> User:
    """Create a user; `email` must be unused and in lower case."""
    return User.create(
        organization=organization_id, email=email, full_name=full_name, password_hash=password_hash, role=role
    )


def get(user_id: str) -> User | None:
    """Return the user of that id; the lookup by which a signed token is believed."""
    return User.get_or_none(User.id == user_id)


def by_email(email: str) -> User | None:
    """Return the user who signs in with `email`."""
    return User.get_or_none(User.email == email.lower())


def first_with_role(organization_id: str, role: str) -> User | None:
    """Return the organization's oldest user with `role`."""
    return User.select().where(User.organization == organization_id, User.role == role).order_by(User.id).first()
