"""The address of a transfer as a trunk gets it in `Refer-To`; collected where there is a `sipp`."""

from pathlib import Path

import pytest

from domain.agents import CONVERSATION_HEADER, transfer_target
from providers.elevenlabs_agents import transfer_config
from tests.support.sipp import refer

CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"


@pytest.mark.parametrize("number", ["+14165550123", "(416) 555-0123", "+442071838750"])
async def test_trunk_takes_the_address_of_a_transfer_in_refer_to(tmp_path: Path, number: str) -> None:
    """The trunk finds the number as the user and its own domain as the host, and our conversation beside it."""
    target = transfer_target(number, None, "CA")
    transfer = transfer_config(target, {"sip_trunk"}, "acme.pstn.sinch.com")
    (header,) = transfer["custom_sip_headers"]
    referral = await refer(tmp_path, transfer["transfer_destination"]["sip_uri"], header["key"], CONVERSATION)

    assert referral.is_accepted, referral.log
    assert f"user={target.address} host=acme.pstn.sinch.com conversation={CONVERSATION}" in referral.log


@pytest.mark.parametrize("address", ["tel:+14165550123", "sip:14165550123@acme.pstn.sinch.com", "sip:+14165550123"])
async def test_trunk_refuses_any_other_form(tmp_path: Path, address: str) -> None:
    """The check above can fail: a `tel:` address has no domain, and a number without its plus is another one."""
    referral = await refer(tmp_path, address, CONVERSATION_HEADER, CONVERSATION)

    assert not referral.is_accepted
