"""Tool calls and what came of them, so that a repeated one does nothing twice."""

from collections.abc import Callable

from domain.times import later, now
from persistence.models import ToolInvocation


def once(organization_id: str, tool: str, fingerprint: str, window: float, act: Callable[[], str]) -> tuple[str, bool]:
    """Run `act` unless the same call was made within `window` seconds.

    Returns the id `act` returned, now or then, and whether it ran now. The row is taken before acting and its lock held
    until commit, so of two simultaneous calls one acts and the other sees the result.
    """
    row = {"organization": organization_id, "tool": tool, "fingerprint": fingerprint}
    ToolInvocation.insert(**row, result_id="", invoked_at="").on_conflict_ignore().execute()
    mine = (ToolInvocation.organization == organization_id) & (ToolInvocation.fingerprint == fingerprint)
    taken = ToolInvocation.update(invoked_at=now()).where(mine, ToolInvocation.invoked_at <= later(-window)).execute()
    if not taken:
        return ToolInvocation.select(ToolInvocation.result_id).where(mine).scalar(), False
    result_id = act()
    ToolInvocation.update(result_id=result_id).where(mine).execute()
    return result_id, True


def forget(before: str, limit: int) -> int:
    """Delete at most `limit` invocations made before that moment; return how many went."""
    old = ToolInvocation.select(ToolInvocation.id).where(ToolInvocation.invoked_at < before).limit(limit)
    return int(ToolInvocation.delete().where(ToolInvocation.id.in_(old)).execute())
