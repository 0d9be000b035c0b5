"""Which calls somebody asks for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; None admits all. They began at `since` or later, and before `before` (wire form)."""

    contact_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    external_call_id: str | None = None
    since: str | None = None
    before: str | None = None


EVERY_CALL = CallFilter()
