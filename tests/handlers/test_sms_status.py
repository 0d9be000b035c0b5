"""What vendors report about texts: who is believed, and that a status only moves forward."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from actions import administer
from persistence.models import Message
from tests.support.api import Api, running_api
from tests.support.faulty_http import Callback, FakeVendor
from tests.support.vendors import FakeSinch, FakeTextGrid, FakeTwilio

pytestmark = pytest.mark.any_engine

PUBLIC = "https://relay.example"
TEXT = "Here is the link."


@dataclass(frozen=True)
class Line:
    """An organization that texts by one vendor, with one text sent; `sent` is the vendor's own record of it."""

    api: Api
    vendor: Any
    name: str
    credentials: dict[str, Any]
    message_id: str
    sent: dict[str, Any]

    def report(self, word: str, sent: dict[str, Any] | None = None) -> Callback:
        """Return the signed report the vendor would make; `sent` is another record than the message's own."""
        make = self.vendor.delivery_report if self.name == "sinch" else self.vendor.status_callback
        made: Callback = make(sent or self.sent, word, *([0] if self.name == "sinch" else []))
        return made

    async def tell(self, callback: Callback, **changes: Any) -> httpx.Response:
        """Send a report to where it is addressed to."""
        sent = {"url": callback.url.removeprefix(PUBLIC), "headers": callback.headers, "content": callback.body}
        return await self.api.http.post(**(sent | changes))

    async def message(self) -> Message:
        """Return the message as it is stored."""
        return await self.api.read(lambda: Message.get_by_id(self.message_id))

    async def told(self) -> list[str]:
        """Return the statuses that listeners heard of."""
        return [event["data"]["status"] for event in await self.api.events() if event["name"] == "message_status"]


# Each vendor's own words for what the contract calls the status.
WORDS = {
    "twilio": {"delivered": "delivered", "undelivered": "undelivered", "failed": "failed", "sent": "sent"},
    "sinch": {"delivered": "Delivered", "undelivered": "Expired", "failed": "Rejected", "sent": "Dispatched"},
    "textgrid": {"delivered": "delivered", "undelivered": "undelivered", "failed": "failed", "sent": "sent"},
}
VENDORS = list(WORDS)


def _vendor(name: str) -> FakeVendor:
    return {"twilio": FakeTwilio, "sinch": FakeSinch, "textgrid": FakeTextGrid}[name]()


def _settings(vendor: FakeVendor, name: str) -> dict[str, str]:
    return {f"{name}_sms_url" if name == "sinch" else f"{name}_url": vendor.url}


def _credentials(vendor: Any, name: str, *, is_signing: bool) -> dict[str, Any]:
    if name == "twilio":
        # An API key sends texts as well, but reports are signed with the account's token.
        return dict(vendor.credentials if is_signing else vendor.api_key_credentials)
    credentials = dict(vendor.service_plan if name == "sinch" else vendor.credentials)
    return credentials | {"webhook_secret": vendor.webhook_secret} if is_signing else credentials


async def connected(api: Api, vendor: Any, name: str, *, is_signing: bool = True) -> Line:
    """Have the organization text its contact by that vendor."""
    credentials = _credentials(vendor, name, is_signing=is_signing)
    await administer.configure_sms(api.relay, api.organization_id, name, credentials)
    answer = await api.tool("send-sms", {"phone_number": api.demo.contact_phone, "message": TEXT})
    assert answer.json()["success"] is True, answer.text
    (message,) = await api.read(lambda: list(Message.select()))
    sent = (vendor.batches if name == "sinch" else vendor.messages)[-1]
    return Line(api, vendor, name, credentials, message.id, sent)


@pytest.fixture(params=VENDORS)
async def line(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Line]:
    async with _vendor(request.param) as vendor, running_api(tmp_path, **_settings(vendor, request.param)) as api:
        yield await connected(api, vendor, request.param)


@pytest.fixture(params=VENDORS)
async def unsigned(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Line]:
    """An organization that holds no secret to check its vendor's signatures with."""
    async with _vendor(request.param) as vendor, running_api(tmp_path, **_settings(vendor, request.param)) as api:
        yield await connected(api, vendor, request.param, is_signing=False)


async def test_every_text_is_sent_with_an_address_for_its_reports(line: Line) -> None:
    """Its own, under the public address, and it says which message it is about."""
    address = urlsplit(line.report("delivered").url)

    assert f"{address.scheme}://{address.netloc}" == PUBLIC
    assert address.path == f"/api/webhook/sms/{line.name}/{line.message_id}"


async def test_without_a_public_address_none_is_asked_for(tmp_path: Path) -> None:
    """Nobody could reach it."""
    async with FakeTwilio() as twilio, running_api(tmp_path, twilio_url=twilio.url, public_url=None) as api:
        line = await connected(api, twilio, "twilio")

        assert line.sent["status_callback"] is None


@pytest.mark.parametrize("status", ["delivered", "undelivered", "failed"])
@pytest.mark.each_engine
async def test_a_report_moves_the_message_on_and_listeners_hear_of_it(line: Line, status: str) -> None:
    """Once, however often it comes, at once or later."""
    callback = line.report(WORDS[line.name][status])
    answers = await asyncio.gather(*[line.tell(callback) for _ in range(5)])
    answers.append(await line.tell(callback))

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"received":true}')}
    assert (await line.message()).status == status
    assert await line.told() == ["sent", status]


@pytest.mark.each_engine
async def test_a_late_report_changes_nothing(line: Line) -> None:
    """What was delivered stays delivered, in whichever order reports arrive."""
    words = WORDS[line.name]
    for status in ("delivered", "sent", "undelivered", "failed", "delivered"):
        assert (await line.tell(line.report(words[status]))).status_code == 200

    assert (await line.message()).status == "delivered"
    assert await line.told() == ["sent", "delivered"]


@pytest.mark.each_engine
async def test_a_status_only_ever_moves_forward(line: Line) -> None:
    """In every order of every report, the first final one counts."""
    words = WORDS[line.name]
    for order in itertools.permutations(["sent", "delivered", "failed"]):
        await line.api.relay.database.write(
            lambda: Message.update(status="sent").where(Message.id == line.message_id).execute()
        )
        for status in order:
            await line.tell(line.report(words[status]))

        assert (await line.message()).status == next(status for status in order if status != "sent")


async def test_what_went_wrong_is_kept(tmp_path: Path) -> None:
    """The vendor's own code, beside the message."""
    async with FakeTwilio() as twilio, running_api(tmp_path, twilio_url=twilio.url) as api:
        line = await connected(api, twilio, "twilio")
        await line.tell(twilio.status_callback(line.sent, "undelivered", 30003))

        assert (await line.message()).error == "twilio: error 30003"


async def test_a_status_nobody_records_is_acknowledged(line: Line) -> None:
    """Vendors add words; refusing them would have them sent again and again."""
    assert (await line.tell(line.report("pondering"))).status_code == 200
    assert await line.told() == ["sent"]


# Who is believed


async def changed(line: Line, how: str) -> httpx.Response:
    callback = line.report(WORDS[line.name]["delivered"])
    names = [name for name in callback.headers if "ignature" in name]
    first = names[0]
    if how == "no signature":
        return await line.tell(callback, headers={"Content-Type": callback.headers["Content-Type"]})
    if how == "another signature":
        return await line.tell(callback, headers={**callback.headers, first: "A" * len(callback.headers[first])})
    if how == "another body":
        return await line.tell(callback, content=callback.body.replace(b"elivered", b"elivereD"))
    return await line.tell(callback, url=callback.url.removeprefix(PUBLIC).replace(line.message_id, "0" * 24))


async def test_a_wrong_signature_leaves_nothing_but_a_count(line: Line) -> None:
    """401, whatever was meddled with; the token in the address alone is not enough where a signature can be checked."""
    ways = ["no signature", "another signature", "another body", "another message"]
    with capture_logs() as lines:
        answers = {how: await changed(line, how) for how in ways}
    reasons = [entry["reason"] for entry in lines if entry["event"] == "webhook.refused"]
    metrics = (await line.api.http.get("/metrics")).text

    assert {how: answer.status_code for how, answer in answers.items()} == dict.fromkeys(ways, 401)
    assert 0 < len(reasons) == len(set(reasons))
    assert all(set(answer.json()) == {"success", "error"} for answer in answers.values())
    assert f'relay_signatures_refused_total{{vendor="{line.name}"}} {len(ways)}.0' in metrics
    assert (await line.message()).status == "sent"
    assert await line.told() == ["sent"]


async def test_another_vendor_knows_nothing_of_the_message(line: Line) -> None:
    """The path names the vendor, and the message was sent by one of them only; its token tells that it exists."""
    callback = line.report(WORDS[line.name]["delivered"])
    other = VENDORS[VENDORS.index(line.name) - 1]
    moved = callback.url.removeprefix(PUBLIC).replace(f"/{line.name}/", f"/{other}/")

    assert (await line.tell(callback, url=moved)).status_code == 404
    assert (await line.tell(callback, url=moved.partition("?")[0])).status_code == 401
    assert (await line.message()).status == "sent"


async def test_a_report_about_another_of_the_vendors_messages_changes_nothing(line: Line) -> None:
    """It is signed well and names an id that is not this message's."""
    other = line.sent | {"sid": "SMother", "id": "01OTHER"}
    callback = line.report(WORDS[line.name]["failed"], sent=other)

    assert (await line.tell(callback)).status_code == 200
    assert (await line.message()).status == "sent"


async def test_without_a_secret_the_token_in_the_address_counts(unsigned: Line) -> None:
    """It was handed out for this message alone; no other one, and none at all, will do."""
    word = WORDS[unsigned.name]["delivered"]
    callback = unsigned.report(word)
    bare = callback.url.removeprefix(PUBLIC).partition("?")[0]
    refused = [await unsigned.tell(callback, url=bare + query) for query in ("", "?token=", "?token=" + "0" * 64)]
    before = (await unsigned.message()).status
    accepted = await unsigned.tell(callback)

    assert [answer.status_code for answer in refused] == [401, 401, 401]
    assert (before, accepted.status_code, (await unsigned.message()).status) == ("sent", 200, "delivered")


async def test_reports_come_home_after_the_organization_changed_its_vendor(line: Line) -> None:
    """The old vendor's signature can no longer be checked; its token still can."""
    await administer.configure_sms(line.api.relay, line.api.organization_id, "console", {})
    answer = await line.tell(line.report(WORDS[line.name]["delivered"]))

    assert (answer.status_code, (await line.message()).status) == (200, "delivered")


async def test_the_secret_of_the_next_vendor_checks_no_report_of_the_one_before(tmp_path: Path) -> None:
    """Sinch and TextGrid both sign with a webhook's secret, each with its own."""
    async with FakeSinch() as sinch, FakeTextGrid() as textgrid, running_api(tmp_path, sinch_sms_url=sinch.url) as api:
        line = await connected(api, sinch, "sinch")
        next_one = _credentials(textgrid, "textgrid", is_signing=True)
        await administer.configure_sms(api.relay, api.organization_id, "textgrid", next_one)
        answer = await line.tell(line.report(WORDS["sinch"]["delivered"]))

        assert (answer.status_code, (await line.message()).status) == (200, "delivered")


async def test_a_message_that_has_gone_is_404_to_who_was_told_of_it_and_401_to_others(unsigned: Line) -> None:
    """Its token proves that it was there."""
    callback = unsigned.report(WORDS[unsigned.name]["delivered"])
    await unsigned.api.relay.database.write(lambda: Message.delete().where(Message.id == unsigned.message_id).execute())
    bare = callback.url.removeprefix(PUBLIC).partition("?")[0]

    assert (await unsigned.tell(callback)).status_code == 404
    assert (await unsigned.tell(callback, url=bare)).status_code == 401


# Bad input


async def test_what_cannot_be_read_is_400(unsigned: Line) -> None:
    """From somebody believed, in the operation's envelope."""
    callback = unsigned.report(WORDS[unsigned.name]["delivered"])
    bodies = [b"", b"x" * 100, b"MessageSid=SM1", b"%ff=%ff", b"[]", b"{", b"null", b'{"type": 1}']
    answers = {body: await unsigned.tell(callback, content=body) for body in bodies}

    assert {body: answer.status_code for body, answer in answers.items()} == dict.fromkeys(bodies, 400)
    assert all(answer.json()["success"] is False for answer in answers.values())
    assert (await unsigned.message()).status == "sent"


async def test_another_type_of_body_is_415(unsigned: Line) -> None:
    """Forms from those who send forms, JSON from the one who sends JSON."""
    callback = unsigned.report(WORDS[unsigned.name]["delivered"])
    other = "application/x-www-form-urlencoded" if unsigned.name == "sinch" else "application/json"

    assert (await unsigned.tell(callback, headers={"Content-Type": other})).status_code == 415


async def test_a_body_far_too_large_is_413(unsigned: Line) -> None:
    """A report has a few hundred bytes."""
    callback = unsigned.report(WORDS[unsigned.name]["delivered"])
    body = urlencode({"MessageSid": "x" * 70_000}).encode()

    assert (await unsigned.tell(callback, content=body)).status_code == 413


async def test_another_provider_in_the_path_is_no_operation_of_ours(api: Api) -> None:
    """The document lists three."""
    response = await api.http.post(f"/api/webhook/sms/pigeon/{'0' * 24}", content=b"MessageSid=1")

    assert response.status_code in (400, 401)
