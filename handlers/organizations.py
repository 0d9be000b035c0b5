"""Settings of one organization, the caller's own."""

from actions.business_hours import Schedule, change_business_hours, read_business_hours
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

_FIELDS = {
    "timezone": "timezone",
    "businessHours": "week",
    "holidays": "holidays",
    "exceptionalHours": "exceptional",
    "allowUserBusinessHoursOverride": "allow_user_override",
}


async def get_organizations_business_hours(
    request: Request[Relay], *, organization_id: str
) -> GetOrganizationsBusinessHoursAnswer:
    """Show when the organization is open, to administrators."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    found = await read_business_hours(request.relay, request.caller.organization_id, organization_id)
    return GetOrganizationsBusinessHours200(_answer(found))


async def put_organizations_business_hours(
    request: Request[Relay], *, organization_id: str, body: models.OrganizationBusinessHoursRequest
) -> PutOrganizationsBusinessHoursAnswer:
    """Change when the organization is open."""
    request.caller.require(Role.ADMIN, Role.SUPERADMIN)
    sent = body.model_dump(mode="json", exclude_unset=True)
    given = {field: sent[name] for name, field in _FIELDS.items() if name in sent}
    changed = await change_business_hours(
        request.relay, request.caller.organization_id, organization_id, given, actor_of(request)
    )
    return PutOrganizationsBusinessHours200(_answer(changed))


def _answer(schedule: Schedule) -> models.OrganizationBusinessHoursResponse:
    data = models.OrganizationBusinessHours(
        timezone=schedule.timezone,
        businessHours=models.BusinessHoursWeek.model_validate(schedule.week),
        isDefault=schedule.is_default,
        holidays=[models.BusinessHoursHoliday.model_validate(one) for one in schedule.holidays],
        exceptionalHours=[models.BusinessHoursException.model_validate(one) for one in schedule.exceptional],
        allowUserBusinessHoursOverride=schedule.allow_user_override,
    )
    return models.OrganizationBusinessHoursResponse(success=True, data=data)
