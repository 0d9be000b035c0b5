"""The TextGrid client and its callbacks, against a loopback TextGrid."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from domain.errors import InvalidRequest, ProviderRejected, Unauthenticated
from domain.messages import OutboundText, StatusReport
from domain.statuses import MessageStatus
from providers.textgrid import TextGrid, TextGridCredentials, parse_status, verify_signature
from tests.support.faulty_http import Reply
from tests.support.text_contract import TEXT, Stage, TextProviderContract, failure
from tests.support.vendors import FakeTextGrid

SECRET = SecretStr("secret")
URL, BODY, SIGNATURE = "https://a.example.com/hook", b"From=%2B1&To=%2B2", "pINDAvLELgP4/fbEQ9MYCAp6iEE="


@pytest.fixture
async def textgrid() -> AsyncIterator[FakeTextGrid]:
    async with FakeTextGrid() as fake:
        yield fake


@pytest.fixture
def stage(textgrid: FakeTextGrid, http: httpx.AsyncClient) -> Stage:
    credentials = TextGridCredentials.model_validate(textgrid.credentials)
    return Stage(
        fake=textgrid,
        make=lambda url, timeout, client: TextGrid(client, url, credentials, timeout=timeout),
        http=http,
        on="/Messages.json",
        secrets=(textgrid.auth_token, credentials.authorization()),
        names=(textgrid.account_sid,),
    )


class TestTextGrid(TextProviderContract):
    async def test_the_request_is_json_in_lower_camel_case(self, stage: Stage, textgrid: FakeTextGrid) -> None:
        """A text is JSON, the callback address goes along, and odd characters of the account are encoded."""
        message = OutboundText(TEXT.from_number, TEXT.to_number, TEXT.text, TEXT.reference, "https://r.example.com/s")
        sent = await stage.provider().send(message)

        request = textgrid.requests[0]
        assert request.document == {
            "from": TEXT.from_number,
            "to": TEXT.to_number,
            "body": TEXT.text,
            "statusCallback": "https://r.example.com/s",
        }
        assert request.target == "/2010-04-01/Accounts/Tg%2F9%2BaB3kQ7xY2mN5pR1wA%3D%3D/Messages.json"
        assert sent.provider_message_id == textgrid.messages[0]["sid"]

    @pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
    async def test_the_scheme_is_configured(self, http: httpx.AsyncClient, scheme: str) -> None:
        """Accounts differ in how they sign in."""
        async with FakeTextGrid(scheme) as fake:
            await TextGrid(http, fake.url, TextGridCredentials.model_validate(fake.credentials)).send(TEXT)

            assert len(fake.messages) == 1

    async def test_the_wrong_scheme_is_a_refusal(self, http: httpx.AsyncClient) -> None:
        """It is not tried the other way by itself."""
        async with FakeTextGrid("Basic") as fake:
            wrong = TextGridCredentials.model_validate(fake.credentials | {"auth_scheme": "Bearer"})
            error = await failure(TextGrid(http, fake.url, wrong))

            assert (type(error), error.reason) == (ProviderRejected, "answered 401: Unauthorized")
            assert len(fake.requests) == 1

    async def test_an_opt_out_is_final(self, stage: Stage) -> None:
        """The code is kept; the sentence quotes the number, so it is not."""
        opted_out = OutboundText(TEXT.from_number, FakeTextGrid.OPTED_OUT, TEXT.text, TEXT.reference)
        error = await failure(stage.provider(), opted_out)

        assert (type(error), error.vendor_code, error.reason) == (ProviderRejected, "21610", "answered 400")

    @pytest.mark.parametrize(
        ("document", "code"),
        [
            ({"sid": "x", "status": "failed", "error_code": None}, None),
            ({"sid": "x", "status": "Failed", "error_code": 30007}, "30007"),
            ({"sid": "x", "status": "queued", "error_code": "E42"}, "E42"),
            ({"status": "failed"}, None),
        ],
    )
    async def test_a_failure_inside_a_success_is_a_refusal(
        self, stage: Stage, textgrid: FakeTextGrid, document: dict[str, object], code: str | None
    ) -> None:
        """A 2xx can still say no, with or without a message id."""
        textgrid.behave(Reply(200, {**document, "error_message": "Carrier says no"}))

        error = await failure(stage.provider())

        assert (type(error), error.vendor_code) == (ProviderRejected, code)
        assert error.reason == "accepted it as failed: Carrier says no"

    async def test_plain_words_are_kept_and_bounded(self, stage: Stage, textgrid: FakeTextGrid) -> None:
        """An error body of unknown shape is quoted in one line of at most 200 characters."""
        textgrid.behave(Reply(400, body=b"Campaign\r\n  not\x1b[31m registered " + b"!" * 5000))

        error = await failure(stage.provider())

        assert error.reason.startswith("answered 400: Campaign not [31m registered !!!")
        assert len(error.reason) == len("answered 400: ") + 200


class TestCredentials:
    def test_they_survive_storage(self) -> None:
        """What is stored reads back as the same credentials; without a scheme it is Bearer."""
        stored = FakeTextGrid("Basic").credentials
        credentials = TextGridCredentials.model_validate(stored)
        bare = TextGridCredentials.model_validate({"account_sid": "a==", "auth_token": "t"})

        assert credentials.to_secret_dict() == stored
        assert TextGridCredentials.model_validate(credentials.to_secret_dict()) == credentials
        assert bare.auth_scheme == "Bearer"

    @pytest.mark.parametrize("wrong", [{"account_sid": ""}, {"account_sid": "a b"}, {"auth_scheme": "Digest"}])
    def test_impossible_ones_are_refused(self, wrong: dict[str, str]) -> None:
        """What cannot be sent is not stored."""
        with pytest.raises(ValidationError):
            TextGridCredentials.model_validate(FakeTextGrid().credentials | wrong)


class TestSignature:
    def test_the_known_vector_verifies(self) -> None:
        """URL and raw body are signed together."""
        verify_signature(SIGNATURE, URL, BODY, SECRET)

    @pytest.mark.parametrize(
        ("signature", "url", "body", "secret"),
        [
            ("", URL, BODY, "secret"),
            ("é", URL, BODY, "secret"),
            (SIGNATURE, URL + "/", BODY, "secret"),
            (SIGNATURE, URL, b"To=%2B2&From=%2B1", "secret"),
            (SIGNATURE, URL, BODY, "other"),
        ],
    )
    def test_anything_changed_is_refused(self, signature: str, url: str, body: bytes, secret: str) -> None:
        """Every part counts, and the order of the fields too."""
        with pytest.raises(Unauthenticated):
            verify_signature(signature, url, body, SecretStr(secret))


class TestStatus:
    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("queued", MessageStatus.SENT),
            ("sent", MessageStatus.SENT),
            ("delivered", MessageStatus.DELIVERED),
            ("Undelivered", MessageStatus.UNDELIVERED),
            ("failed", MessageStatus.FAILED),
        ],
    )
    def test_every_word_has_its_status(self, word: str, status: MessageStatus) -> None:
        """TextGrid's words become ours."""
        assert parse_status(f"MessageSid=a%3D%3D&MessageStatus={word}".encode()) == StatusReport("a==", status)

    def test_a_failure_says_why(self) -> None:
        """The error code comes along."""
        report = parse_status(b"SmsSid=a&SmsStatus=undelivered&ErrorCode=30007")

        assert report == StatusReport("a", MessageStatus.UNDELIVERED, "30007")

    def test_an_unknown_word_changes_nothing(self) -> None:
        """A word we do not know is no reason to fail."""
        assert parse_status(b"MessageSid=a&MessageStatus=teleported") is None

    @pytest.mark.parametrize("body", [b"", b"{}", b"MessageSid=a", b"\xff=1"])
    def test_what_is_no_report_is_refused(self, body: bytes) -> None:
        """A report names its message and its status."""
        with pytest.raises(InvalidRequest):
            parse_status(body)

    async def test_a_whole_report_verifies_and_reads(self, stage: Stage, textgrid: FakeTextGrid) -> None:
        """What TextGrid would post about a sent text is believed and understood."""
        sent = await stage.provider().send(TEXT)
        callback = textgrid.status_callback(textgrid.messages[0], "delivered", url=URL)

        signature = callback.headers["X-TextGrid-Signature"]
        verify_signature(signature, callback.url, callback.body, SecretStr(textgrid.webhook_secret))
        assert parse_status(callback.body) == StatusReport(sent.provider_message_id, MessageStatus.DELIVERED)
