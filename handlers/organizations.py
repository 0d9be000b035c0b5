"""Settings of one organization, the caller's own."""

from actions.business_hours import change_business_hours, read_business_hours
from actions.relay import Relay
from domain.principals import Role
from handlers.acting import actor_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetOrganizationsBusinessHours200,
    GetOrganizationsBusinessHoursAnswer,
    PutOrganizationsBusinessHours200,
    PutOrganizationsBusinessHoursAnswer,
)

_FIELDS = ("timezone", "businessHours", "holidays", "exceptionalHours", "allowUserBusinessHoursOverride")


async def get_organizations_business_hours(
    request: Request[Relay], *, organization_id: str
) -> GetOrganizationsBusinessHoursAnswer:
    """Show when the organization is open, to administrators."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    found = await read_business_hours(request.relay, request.caller.organization_id, organization_id)
    body = {"success": True, "data": found}
    return GetOrganizationsBusinessHours200(models.OrganizationBusinessHoursResponse.model_validate(body))


async def put_organizations_business_hours(
    request: Request[Relay], *, organization_id: str, body: models.OrganizationBusinessHoursRequest
) -> PutOrganizationsBusinessHoursAnswer:
    """Change when the organization is open."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    sent = body.model_dump(mode="json", exclude_unset=True)
    given = {name: sent[name] for name in _FIELDS if name in sent}
    changed = await change_business_hours(
        request.relay, request.caller.organization_id, organization_id, given, actor_of(request)
    )
    answer = {"success": True, "data": changed}
    return PutOrganizationsBusinessHours200(models.OrganizationBusinessHoursResponse.model_validate(answer))
