"""The Twilio client and its callbacks, against a loopback Twilio."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from domain.errors import InvalidRequest, ProviderRejected, ProviderUnavailable, Unauthenticated
from domain.messages import OutboundText, StatusReport
from domain.statuses import MessageStatus
from providers.twilio import Twilio, TwilioCredentials, parse_status, verify_signature
from tests.support.faulty_http import Reply
from tests.support.text_contract import TEXT, Stage, TextProviderContract, failure
from tests.support.vendors import FakeTwilio

FORM = "application/x-www-form-urlencoded"
TOKEN = SecretStr("12345")
URL = "https://a.example.com/hook?x=1"
BODY = b"CallSid=CA1&To=%2B1&From=%2B2&MessageStatus=delivered"
SHA1, SHA256 = "/azjYCAjzGYXZXcK/RLiy52ycTc=", "3sINh7IjOVmyE9XTqlwROw9c0478WcrKk5enBPOtbXE="


@pytest.fixture
async def twilio() -> AsyncIterator[FakeTwilio]:
    async with FakeTwilio() as fake:
        yield fake


@pytest.fixture
def stage(twilio: FakeTwilio, http: httpx.AsyncClient) -> Stage:
    credentials = TwilioCredentials.model_validate(twilio.credentials)
    return Stage(
        fake=twilio,
        make=lambda url, timeout, client: Twilio(client, url, credentials, timeout=timeout),
        http=http,
        on="/Messages.json",
        secrets=(twilio.auth_token, credentials.basic()),
        names=(twilio.account_sid,),
    )


def to(number: str) -> OutboundText:
    return OutboundText(TEXT.from_number, number, TEXT.text, TEXT.reference)


async def test_credentials_are_checked_by_a_question(twilio: FakeTwilio, http: httpx.AsyncClient) -> None:
    """Nothing is sent; what Twilio refuses is raised with its number, without the token."""
    right = TwilioCredentials.model_validate(twilio.credentials)
    wrong = TwilioCredentials.model_validate(twilio.credentials | {"auth_token": "0" * 32})
    await Twilio(http, twilio.url, right).check()
    with pytest.raises(ProviderRejected) as raised:
        await Twilio(http, twilio.url, wrong).check()

    assert [(request.method, request.target.partition("?")[2]) for request in twilio.requests] == [
        ("GET", "PageSize=1"),
        ("GET", "PageSize=1"),
    ]
    assert (raised.value.status, raised.value.vendor_code) == (401, "20003")
    assert "0" * 32 not in str(raised.value)
    assert twilio.messages == []


class TestTwilio(TextProviderContract):
    async def test_the_request_is_the_documented_form(self, stage: Stage, twilio: FakeTwilio) -> None:
        """A text is a PascalCase form, signed in with Basic, and the callback address goes along."""
        callback = "https://relay.example.com/status"
        message = OutboundText(TEXT.from_number, TEXT.to_number, TEXT.text, TEXT.reference, callback)

        sent = await stage.provider().send(message)

        request = twilio.requests[0]
        assert request.form == {
            "To": TEXT.to_number,
            "From": TEXT.from_number,
            "Body": TEXT.text,
            "StatusCallback": callback,
        }
        assert request.headers["content-type"] == FORM
        assert request.headers["accept-encoding"] == "identity"
        assert sent.provider_message_id == twilio.messages[0]["sid"]

    async def test_without_a_callback_address_none_is_sent(self, stage: Stage, twilio: FakeTwilio) -> None:
        """Twilio would refuse an empty address."""
        await stage.provider().send(TEXT)

        assert "StatusCallback" not in twilio.requests[0].form

    async def test_an_api_key_signs_in_for_the_account(self, twilio: FakeTwilio, http: httpx.AsyncClient) -> None:
        """An API key is used in place of the account, also when the auth token is there for the callbacks."""
        both = twilio.api_key_credentials | {"auth_token": "another-token"}
        for stored in (twilio.api_key_credentials, both):
            await Twilio(http, twilio.url, TwilioCredentials.model_validate(stored)).send(TEXT)

        assert len(twilio.messages) == 2

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (FakeTwilio.INVALID, "21211"),
            (FakeTwilio.NO_REGION, "21408"),
            (FakeTwilio.OPTED_OUT, "21610"),
            (FakeTwilio.NOT_MOBILE, "21614"),
        ],
    )
    async def test_a_refusal_carries_twilios_code(self, stage: Stage, number: str, code: str) -> None:
        """The documented refusals are final and keep their number, but not the caller's."""
        error = await failure(stage.provider(), to(number))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 400, code)
        assert number not in str(error)

    async def test_harmless_words_of_a_refusal_are_kept(self, stage: Stage) -> None:
        """What Twilio says helps the operator, as long as it quotes nothing private."""
        error = await failure(stage.provider(), to(FakeTwilio.OPTED_OUT))

        assert str(error) == "twilio: answered 400: Attempt to send to unsubscribed recipient"

    async def test_wrong_credentials_are_a_refusal(self, twilio: FakeTwilio, http: httpx.AsyncClient) -> None:
        """A wrong token is 20003."""
        wrong = TwilioCredentials.model_validate(twilio.credentials | {"auth_token": "wrong"})
        error = await failure(Twilio(http, twilio.url, wrong))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 401, "20003")

    async def test_too_many_requests_were_never_processed(self, stage: Stage, twilio: FakeTwilio) -> None:
        """20429 is documented as never processed."""
        twilio.behave(Reply(429, {"code": 20429, "message": "Too Many Requests", "status": 429}))

        error = await failure(stage.provider())

        assert (type(error), error.vendor_code) == (ProviderUnavailable, "20429")

    async def test_errors_in_the_newer_shape_are_read(self, stage: Stage, twilio: FakeTwilio) -> None:
        """RFC 9457 errors give their code and their detail, or their title when there is no detail."""
        problem = {"type": "https://www.twilio.com/docs/errors/21212", "title": "Invalid From", "status": 400}
        twilio.behave(
            Reply(400, {**problem, "code": 21212, "detail": "The sender cannot send"}),
            Reply(400, {**problem, "code": 21212}),
        )

        first, second = await failure(stage.provider()), await failure(stage.provider())

        assert (first.vendor_code, first.reason) == ("21212", "answered 400: The sender cannot send")
        assert (second.vendor_code, second.reason) == ("21212", "answered 400: Invalid From")

    @pytest.mark.parametrize("status", ["failed", "undelivered", "canceled"])
    async def test_a_message_created_as_failed_is_a_refusal(
        self, stage: Stage, twilio: FakeTwilio, status: str
    ) -> None:
        """A 201 can still say no."""
        twilio.behave(Reply(201, {"sid": "SM1", "status": status, "error_code": 30034, "error_message": "Blocked"}))

        error = await failure(stage.provider())

        assert (type(error), error.vendor_code) == (ProviderRejected, "30034")
        assert error.reason == "accepted it as failed: Blocked"

    async def test_an_error_code_in_a_success_is_a_refusal(self, stage: Stage, twilio: FakeTwilio) -> None:
        """Whatever the status says beside it."""
        twilio.behave(Reply(201, {"sid": "SM1", "status": "queued", "error_code": 30034, "error_message": None}))

        error = await failure(stage.provider())

        assert (type(error), error.vendor_code) == (ProviderRejected, "30034")


class TestCredentials:
    def test_they_survive_storage(self) -> None:
        """What is stored reads back as the same credentials."""
        fake = FakeTwilio()
        for stored in (fake.credentials, fake.api_key_credentials):
            credentials = TwilioCredentials.model_validate(stored)

            assert credentials.to_secret_dict() == stored
            assert TwilioCredentials.model_validate(credentials.to_secret_dict()) == credentials

    def test_secrets_hide(self) -> None:
        """Neither repr nor a complaint shows a secret."""
        fake = FakeTwilio()
        with pytest.raises(ValidationError) as caught:
            TwilioCredentials.model_validate({"account_sid": fake.account_sid, "auth_token": "with a space"})

        assert "with a space" not in str(caught.value)
        assert fake.auth_token not in repr(TwilioCredentials.model_validate(fake.credentials))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"account_sid": "AC" + "0" * 32},
            {"account_sid": "AC" + "0" * 31, "auth_token": "t"},
            {"account_sid": "AC" + "0" * 32 + "\n", "auth_token": "t"},
            {"account_sid": "AC" + "0" * 32, "auth_token": ""},
            {"account_sid": "AC" + "0" * 32, "auth_token": "line\nbreak"},
            {"account_sid": "AC" + "0" * 32, "auth_token": "é"},
            {"account_sid": "AC" + "0" * 32, "api_key_sid": "SK" + "0" * 32},
            {"account_sid": "AC" + "0" * 32, "auth_token": "t", "api_key_secret": "s"},
            {"account_sid": "AC" + "0" * 32, "auth_token": "t", "token": "extra"},
        ],
    )
    def test_incomplete_or_impossible_ones_are_refused(self, wrong: dict[str, str]) -> None:
        """An account needs a well-formed SID and one complete secret."""
        with pytest.raises(ValidationError):
            TwilioCredentials.model_validate(wrong)


class TestSignature:
    def test_the_documented_vectors_verify(self) -> None:
        """A form is signed with SHA-1 and the auth token, or SHA-256 and a shared key."""
        verify_signature(SHA1, URL, BODY, FORM, TOKEN)
        verify_signature(SHA256, URL, BODY, f"{FORM}; charset=utf-8", TOKEN, algorithm="sha256")

    def test_our_configuration_chooses_the_algorithm(self) -> None:
        """A signature of the other kind does not pass."""
        with pytest.raises(Unauthenticated):
            verify_signature(SHA256, URL, BODY, FORM, TOKEN)
        with pytest.raises(Unauthenticated):
            verify_signature(SHA1, URL, BODY, FORM, TOKEN, algorithm="sha256")

    @pytest.mark.parametrize(
        ("signature", "url", "body", "secret"),
        [
            ("", URL, BODY, "12345"),
            ("é", URL, BODY, "12345"),
            (SHA1.lower(), URL, BODY, "12345"),
            (SHA1, URL + "&y=2", BODY, "12345"),
            (SHA1, "https://a.example.com/hook/?x=1", BODY, "12345"),
            (SHA1, URL, BODY.replace(b"delivered", b"failed"), "12345"),
            (SHA1, URL, BODY + b"&Extra=", "12345"),
            (SHA1, URL, b"%ff=%ff", "12345"),
            (SHA1, URL, BODY, "123456"),
        ],
    )
    def test_anything_changed_is_refused(self, signature: str, url: str, body: bytes, secret: str) -> None:
        """Signature, address, form and secret all count."""
        with pytest.raises(Unauthenticated):
            verify_signature(signature, url, body, FORM, SecretStr(secret))

    @pytest.mark.parametrize("signed_url", ["https://a.example.com/hook?x=1", "https://a.example.com:443/hook?x=1"])
    @pytest.mark.parametrize("seen_url", ["https://a.example.com/hook?x=1", "https://a.example.com:443/hook?x=1"])
    def test_a_port_may_come_or_go(self, signed_url: str, seen_url: str) -> None:
        """Twilio signs the address with or without its port."""
        verify_signature(sign(signed_url), seen_url, b"", "", TOKEN)

    def test_repeated_fields_are_signed_once_and_sorted(self) -> None:
        """Per key each distinct value counts once, in order."""
        signature = sign(URL + "MediaUrlaMediaUrlbTo+1")

        verify_signature(signature, URL, b"To=%2B1&MediaUrl=b&MediaUrl=a&MediaUrl=b", FORM, TOKEN)

    def test_a_json_body_is_covered_by_its_hash(self) -> None:
        """The address carries the hash of the body, and only the address is signed."""
        body = b'{"status": "delivered"}'
        url = f"{URL}&bodySHA256={hashlib.sha256(body).hexdigest()}"

        verify_signature(sign(url), url, body, "application/json", TOKEN)
        with pytest.raises(Unauthenticated):
            verify_signature(sign(url), url, body + b" ", "application/json", TOKEN)

    def test_a_json_body_without_a_hash_is_refused(self) -> None:
        """A body the signature does not cover proves nothing."""
        with pytest.raises(Unauthenticated):
            verify_signature(sign(URL), URL, b"{}", "application/json", TOKEN)


class TestStatus:
    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("accepted", MessageStatus.SENT),
            ("queued", MessageStatus.SENT),
            ("sending", MessageStatus.SENT),
            ("sent", MessageStatus.SENT),
            ("delivered", MessageStatus.DELIVERED),
            ("read", MessageStatus.DELIVERED),
            ("undelivered", MessageStatus.UNDELIVERED),
            ("failed", MessageStatus.FAILED),
            ("canceled", MessageStatus.FAILED),
        ],
    )
    def test_every_word_has_its_status(self, word: str, status: MessageStatus) -> None:
        """Twilio's words become ours."""
        report = parse_status(f"MessageSid=SM1&MessageStatus={word}".encode())

        assert report == StatusReport("SM1", status)

    def test_a_failure_says_why(self) -> None:
        """The error code comes along when something went wrong, and only then."""
        assert parse_status(b"SmsSid=SM1&SmsStatus=undelivered&ErrorCode=30003") == StatusReport(
            "SM1", MessageStatus.UNDELIVERED, "30003"
        )
        assert parse_status(b"MessageSid=SM1&MessageStatus=delivered&ErrorCode=0") == StatusReport(
            "SM1", MessageStatus.DELIVERED
        )

    def test_capitals_make_no_difference(self) -> None:
        """A word is the same however it is written."""
        assert parse_status(b"MessageSid=SM1&MessageStatus=Delivered") == StatusReport("SM1", MessageStatus.DELIVERED)

    def test_an_unknown_word_changes_nothing(self) -> None:
        """A word we do not know is no reason to fail."""
        assert parse_status(b"MessageSid=SM1&MessageStatus=teleported") is None

    @pytest.mark.parametrize(
        "body", [b"", b"MessageSid=SM1", b"MessageStatus=sent", b"\xff", b"&" * 500 + b"a=1&" * 500]
    )
    def test_what_is_no_report_is_refused(self, body: bytes) -> None:
        """A report names its message and its status."""
        with pytest.raises(InvalidRequest):
            parse_status(body)

    async def test_a_whole_report_verifies_and_reads(self, stage: Stage, twilio: FakeTwilio) -> None:
        """What Twilio would post about a sent text is believed and understood."""
        sent = await stage.provider().send(TEXT)
        callback = twilio.status_callback(twilio.messages[0], "undelivered", 30007, url=URL)

        verify_signature(
            callback.headers["X-Twilio-Signature"],
            callback.url,
            callback.body,
            callback.headers["Content-Type"],
            SecretStr(twilio.auth_token),
        )
        assert parse_status(callback.body) == StatusReport(sent.provider_message_id, MessageStatus.UNDELIVERED, "30007")


def sign(signed: str) -> str:
    return base64.b64encode(hmac.new(b"12345", signed.encode(), hashlib.sha1).digest()).decode()
