"""Tool calls and what came of them, so that a repeated one does nothing twice."""

from collections.abc import Callable
from typing import Any

from domain.identifiers import new_id
from domain.times import later, now
from persistence.models import ToolInvocation
from persistence.statements import Given, Statement


def once(organization_id: str, tool: str, fingerprint: str, window: float, act: Callable[[], str]) -> tuple[str, bool]:
    """Run `act` unless the same call was made within `window` seconds.

    Returns the id `act` returned, now or then, and whether it ran now. The row is taken before acting and its lock held
    until commit, so of two simultaneous calls one acts and the other sees the result.
    """
    mine = {"organization": organization_id, "fingerprint": fingerprint}
    taken = _TAKE.run(**mine, id=new_id(), tool=tool, now=now(), since=later(-window)).rowcount
    if not taken:
        return _RESULT.value(**mine), False
    result_id = act()
    _KEEP.run(**mine, result_id=result_id)
    return result_id, True


def _take() -> Any:
    columns = {name: Given(name) for name in ("id", "organization", "tool", "fingerprint")}
    invoked = ToolInvocation.invoked_at
    return ToolInvocation.insert(**columns, result_id="", invoked_at=Given("now")).on_conflict(
        conflict_target=[ToolInvocation.organization, ToolInvocation.fingerprint],
        update={invoked: Given("now")},
        where=invoked <= Given("since"),
    )


def _mine() -> Any:
    return (ToolInvocation.organization == Given("organization")) & (ToolInvocation.fingerprint == Given("fingerprint"))


_TAKE = Statement(_take)
_RESULT = Statement(lambda: ToolInvocation.select(ToolInvocation.result_id).where(_mine()))
_KEEP = Statement(lambda: ToolInvocation.update(result_id=Given("result_id")).where(_mine()))
