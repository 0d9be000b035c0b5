"""What the caller's organization uses of its quotas."""

from actions.quotas import usage
from actions.relay import Relay
from domain.principals import Role
from openapi import models
from openapi.exchange import Request
from openapi.operations import GetOrganizationUsage200, GetOrganizationUsageAnswer


async def get_organization_usage(request: Request[Relay]) -> GetOrganizationUsageAnswer:
    """Show use and limits, to administrators."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    used = await usage(request.relay, request.caller.organization_id)
    limits = used.limits
    shown = models.OrganizationUsage(
        recordings=models.OrganizationUsageRecordings(
            usedBytes=used.recording_bytes,
            limitBytes=limits.recording_bytes or None,
            isOver=_is_over(used.recording_bytes, limits.recording_bytes),
        ),
        requests=models.OrganizationUsageRequests(
            countedThisMinute=used.requests_this_minute,
            limitPerMinute=limits.requests_per_minute or None,
            isOver=_is_over(used.requests_this_minute, limits.requests_per_minute),
        ),
        sockets=models.OrganizationUsageSockets(
            open=used.open_sockets,
            limit=limits.sockets or None,
            isOver=_is_over(used.open_sockets, limits.sockets),
        ),
    )
    return GetOrganizationUsage200(models.OrganizationUsageResponse(success=True, usage=shown))


def _is_over(used: int, limit: int) -> bool:
    return bool(limit) and used >= limit
