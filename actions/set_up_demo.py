"""A demo organization, so that a fresh installation can be tried at once."""

import secrets
from dataclasses import dataclass

from pydantic import SecretStr

from actions import administer
from actions.relay import Relay
from domain.principals import Role
from persistence import organizations

CONTACT_PHONE = "+14165550100"
ORGANIZATION_PHONE = "+12362320246"
_SECOND_PHONE = "+14165550199"
_EMAIL = "superadmin@demo.example"


@dataclass(frozen=True, slots=True)
class Demo:
    """What it takes to try every operation."""

    superadmin_email: str
    superadmin_password: SecretStr
    api_key: SecretStr
    tool_secret: SecretStr
    contact_phone: str = CONTACT_PHONE
    organization_phone: str = ORGANIZATION_PHONE


async def set_up_demo(relay: Relay) -> Demo | None:
    """Create the demo organization: a superadmin, a contact, two numbers and the console SMS provider.

    Returns None, and creates nothing, when there is an organization already.
    """
    if await relay.database.read(organizations.everyone):
        return None
    organization = await administer.create_organization(relay, "Demo", "CA")
    password = SecretStr(secrets.token_urlsafe(12))
    user = await administer.create_user(
        relay, organization.id, email=_EMAIL, full_name="Demo Superadmin", password=password, role=Role.SUPERADMIN
    )
    await administer.add_phone_number(relay, organization.id, ORGANIZATION_PHONE, label="Front desk", is_default=True)
    await administer.add_phone_number(relay, organization.id, _SECOND_PHONE, label="Outbound")
    await administer.add_contact(relay, organization.id, CONTACT_PHONE, "Alex Example")
    await administer.configure_sms(relay, organization.id, "console", {})
    return Demo(
        superadmin_email=_EMAIL,
        superadmin_password=password,
        api_key=await administer.api_key_of(relay, organization.id, user.id),
        tool_secret=await administer.new_tool_secret(relay, organization.id),
    )
