"""Our own phone numbers."""

from persistence.models import PhoneNumber


def add(organization_id: str, number: str, *, label: str | None, is_default: bool) -> PhoneNumber:
    """Add a number (E.164), or change the one that is there; at most one stays the default."""
    if is_default:
        PhoneNumber.update(is_default=False).where(PhoneNumber.organization == organization_id).execute()
    values = {"label": label, "is_default": is_default}
    PhoneNumber.insert(organization=organization_id, number=number, **values).on_conflict(
        conflict_target=[PhoneNumber.organization, PhoneNumber.number], update=values
    ).execute()
    return PhoneNumber.get(PhoneNumber.organization == organization_id, PhoneNumber.number == number)


def owned(organization_id: str, number: str) -> bool:
    """Tell whether `number` (E.164) is one of the organization's."""
    query = PhoneNumber.select(PhoneNumber.id)
    return bool(query.where(PhoneNumber.organization == organization_id, PhoneNumber.number == number).exists())


def default(organization_id: str) -> str | None:
    """Return the organization's default number, or its oldest, or None when it has none."""
    query = PhoneNumber.select(PhoneNumber.number).where(PhoneNumber.organization == organization_id)
    number: str | None = query.order_by(PhoneNumber.is_default.desc(), PhoneNumber.id).scalar()
    return number


def everyone(organization_id: str) -> list[PhoneNumber]:
    """Return the organization's numbers, the default first."""
    query = PhoneNumber.select().where(PhoneNumber.organization == organization_id)
    return list(query.order_by(PhoneNumber.is_default.desc(), PhoneNumber.id))
