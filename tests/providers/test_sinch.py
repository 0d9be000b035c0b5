"""The Sinch client and its delivery reports, against a loopback Sinch."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from domain.errors import InvalidRequest, OutcomeUnknown, ProviderRejected, ProviderUnavailable, Unauthenticated
from domain.messages import OutboundText, StatusReport
from domain.statuses import MessageStatus
from providers.sinch import (
    AccessTokens,
    Sinch,
    SinchProject,
    SinchServicePlan,
    parse_status,
    read_credentials,
    verify_signature,
)
from tests.support.faulty_http import Fault, Received, Reply, unused_url
from tests.support.text_contract import BRIEF, LIMIT, TEXT, Stage, TextProviderContract, cut_off, failure
from tests.support.vendors import FakeSinch
from tests.support.waiting import patience, until

SECRET = SecretStr("secret")
BODY, NONCE, AT = b'{"type":"recipient_delivery_report_sms"}', "01FJA8B4A7BM43YGWSG9GBV067", "1634579353"
SIGNATURE = "3W4rNWI4odTrYmNyZ99718C+FGMZwa3nqvEwdM1o3Rw="


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def sinch() -> AsyncIterator[FakeSinch]:
    async with FakeSinch() as fake:
        yield fake


@pytest.mark.parametrize("kind", ["service_plan", "project"])
async def test_credentials_are_checked_by_a_question(sinch: FakeSinch, http: httpx.AsyncClient, kind: str) -> None:
    """Of either kind; nothing is sent, and the secret is not in what is raised."""
    given = getattr(sinch, kind)
    secret = "api_token" if kind == "service_plan" else "key_secret"
    right, wrong = read_credentials(given), read_credentials(given | {secret: "0" * 32})
    await Sinch(http, right, auth_url=sinch.url, sms_url=sinch.url).check()
    with pytest.raises(ProviderRejected) as raised:
        await Sinch(http, wrong, auth_url=sinch.url, sms_url=sinch.url).check()

    assert raised.value.status == 401
    assert "0" * 32 not in str(raised.value)
    assert sinch.batches == []
    assert {request.method for request in sinch.requests if request.path.endswith("/batches")} == {"GET"}


class TestServicePlan(TextProviderContract):
    @pytest.fixture
    def stage(self, sinch: FakeSinch, http: httpx.AsyncClient) -> Stage:
        credentials = SinchServicePlan.model_validate(sinch.service_plan)
        return Stage(
            fake=sinch,
            make=lambda url, timeout, client: Sinch(client, credentials, auth_url=url, sms_url=url, timeout=timeout),
            http=http,
            on="/batches",
            secrets=(sinch.api_token,),
            names=(sinch.service_plan_id,),
        )

    async def test_the_request_is_the_documented_batch(self, stage: Stage, sinch: FakeSinch) -> None:
        """A text is a batch of one, with the plan's own token and our reference."""
        sent = await stage.provider().send(TEXT)

        assert sinch.requests[0].document == {
            "type": "mt_text",
            "from": TEXT.from_number,
            "to": [TEXT.to_number],
            "body": TEXT.text,
            "client_reference": TEXT.reference,
        }
        assert sinch.requests[0].headers["authorization"] == f"Bearer {sinch.api_token}"
        assert sent.provider_message_id == sinch.batches[0]["id"]

    async def test_a_callback_address_asks_for_reports(self, stage: Stage, sinch: FakeSinch) -> None:
        """Reports come only when they are asked for."""
        message = OutboundText(TEXT.from_number, TEXT.to_number, "Hi", TEXT.reference, "https://relay.example.com/s")
        await stage.provider().send(message)

        batch = sinch.batches[0]
        assert (batch["delivery_report"], batch["callback_url"]) == ("per_recipient", "https://relay.example.com/s")

    async def test_a_refusal_carries_sinchs_word(self, stage: Stage, sinch: FakeSinch) -> None:
        """Sinch's codes are words, and its sentence is kept unless it quotes the number."""
        sinch.behave(Reply(403, {"code": "missing_callback_url", "text": "No callback URL is set"}))
        first = await failure(stage.provider())
        second = await failure(stage.provider(), OutboundText(TEXT.from_number, "+1", "Hi", TEXT.reference))

        assert (first.vendor_code, first.reason) == ("missing_callback_url", "answered 403: No callback URL is set")
        assert (second.vendor_code, second.reason) == ("syntax_invalid_parameter_format", "answered 400")

    async def test_an_expired_401_is_final_without_oauth(self, stage: Stage, sinch: FakeSinch) -> None:
        """A static token cannot be renewed."""
        sinch.behave(Reply(401, headers={"WWW-Authenticate": "Bearer error_description=expired"}))

        assert type(await failure(stage.provider())) is ProviderRejected
        assert len(sinch.requests) == 1


class TestProject(TextProviderContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def tokens(self, clock: Clock) -> AccessTokens:
        return AccessTokens(clock)

    @pytest.fixture
    def stage(self, sinch: FakeSinch, http: httpx.AsyncClient, tokens: AccessTokens) -> Stage:
        credentials = SinchProject.model_validate(sinch.project)

        def make(url: str, timeout: float, client: httpx.AsyncClient) -> Sinch:
            return Sinch(client, credentials, auth_url=url, sms_url=url, tokens=tokens, timeout=timeout)

        return Stage(
            fake=sinch,
            make=make,
            http=http,
            on="/batches",
            secrets=(sinch.key_secret, credentials.basic()),
            names=(sinch.project_id, sinch.key_id),
        )

    async def test_a_token_is_bought_once_and_shared(self, stage: Stage, sinch: FakeSinch) -> None:
        """A hundred texts of several senders at once take one token."""
        senders = [stage.provider() for _ in range(10)]
        await asyncio.gather(*[sender.send(TEXT) for sender in senders for _ in range(10)])

        assert len(sinch.tokens) == 1
        assert len(sinch.batches) == 100

    async def test_a_token_is_bought_as_documented(self, stage: Stage, sinch: FakeSinch) -> None:
        """The key signs in with Basic and asks for client credentials; the token then rides as Bearer."""
        await stage.provider().send(TEXT)

        token, batch = sinch.requests
        pair = base64.b64encode(f"{sinch.key_id}:{sinch.key_secret}".encode()).decode()
        assert (token.path, token.form) == ("/oauth2/token", {"grant_type": "client_credentials"})
        assert token.headers["authorization"] == f"Basic {pair}"
        assert batch.path == f"/xms/v1/{sinch.project_id}/batches"
        assert batch.headers["authorization"] == f"Bearer {sinch.tokens[0]}"

    async def test_a_token_is_renewed_a_minute_early(self, stage: Stage, sinch: FakeSinch, clock: Clock) -> None:
        """With a minute left the token is good no more."""
        provider = stage.provider()
        for moment, bought in [(1000.0, 1), (1000.0 + 3599 - 61, 1), (1000.0 + 3599 - 60, 2)]:
            clock.now = moment
            await provider.send(TEXT)

            assert len(sinch.tokens) == bought

    async def test_a_token_that_ran_out_early_is_renewed_once(self, stage: Stage, sinch: FakeSinch) -> None:
        """A 401 that says expired did nothing, so a new token is bought and the text goes out once."""
        provider = stage.provider()
        await provider.send(TEXT)
        sinch.expire_tokens()
        await provider.send(TEXT)

        assert len(sinch.tokens) == 2
        assert len(sinch.batches) == 2

    async def test_many_refused_together_renew_together(self, stage: Stage, sinch: FakeSinch) -> None:
        """Whoever finds the token already renewed uses the new one."""
        provider = stage.provider()
        await provider.send(TEXT)
        sinch.expire_tokens()
        await asyncio.gather(*[provider.send(TEXT) for _ in range(20)])

        assert len(sinch.tokens) == 2
        assert len(sinch.batches) == 21

    async def test_a_token_refused_again_is_a_refusal(self, stage: Stage, sinch: FakeSinch) -> None:
        """It is renewed once, not for ever."""
        expired = Reply(401, headers={"WWW-Authenticate": 'Bearer error_description="Token EXPIRED"'})
        sinch.behave(expired, on="/batches", always=True)

        assert type(await failure(stage.provider())) is ProviderRejected
        assert len(sinch.tokens) == 2
        assert len(stage.creates()) == 2

    async def test_another_401_is_a_refusal_at_once(self, stage: Stage, sinch: FakeSinch) -> None:
        """Only expiry is worth a new token."""
        sinch.behave(Reply(401, headers={"WWW-Authenticate": "Bearer"}), on="/batches")

        assert type(await failure(stage.provider())) is ProviderRejected
        assert len(sinch.tokens) == 1

    async def test_a_wrong_key_is_a_refusal(self, sinch: FakeSinch, http: httpx.AsyncClient) -> None:
        """Sinch names what is wrong with the key."""
        wrong = SinchProject.model_validate(sinch.project | {"key_secret": "wrong"})
        error = await failure(Sinch(http, wrong, auth_url=sinch.url, sms_url=sinch.url, timeout=LIMIT))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 401, "invalid_client")
        assert error.reason == "answered 401: Client authentication failed"

    @pytest.mark.parametrize(
        "step",
        [
            Fault.RESET_AFTER_READING,
            Fault.HANG_AFTER_PROCESSING,
            Fault.RESET_INSIDE_BODY,
            Reply(429),
            Reply(500),
            Reply(503),
            Reply(200, body=b"not JSON"),
            Reply(200, {"access_token": None}),
            Reply(200, {"access_token": "line\nbreak", "expires_in": 3600}),
        ],
    )
    async def test_without_a_token_the_text_never_left(
        self, stage: Stage, step: Fault | Reply, move_on: Callable[[float], None]
    ) -> None:
        """Whatever became of the token request, the text was certainly not processed."""
        stage.fake.behave(step, on="/oauth2/token")
        is_silent = lambda: step is Fault.HANG_AFTER_PROCESSING and stage.fake.requests  # noqa: E731

        assert type(await cut_off(failure(stage.provider()), is_silent, move_on)) is ProviderUnavailable
        assert stage.creates() == []

    async def test_waiting_for_somebody_elses_token_ends_in_time(self, stage: Stage, sinch: FakeSinch) -> None:
        """A text that waits for a token others are buying keeps its own time."""
        sinch.behave(Fault.HANG_AFTER_READING, on="/oauth2/token")
        patient = asyncio.create_task(stage.provider().send(TEXT))
        await sinch.until_received(1)
        error = await failure(stage.provider(timeout=BRIEF))
        sinch.release()
        await patient

        assert (type(error), error.reason[:15]) == (ProviderUnavailable, "no access token")
        assert len(sinch.batches) == 1

    async def test_token_and_text_share_one_time_limit(
        self, stage: Stage, sinch: FakeSinch, move_on: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A text whose token took most of the time is cut off at the common end, and its outcome is unknown."""
        answer = sinch.answer

        def slow_token(request: Received) -> Reply:
            if stage.on not in request.target:
                move_on(0.75 * LIMIT)
            return answer(request)

        monkeypatch.setattr(sinch, "answer", slow_token)
        sinch.behave(Fault.HANG_AFTER_READING, on=stage.on)
        sending = asyncio.create_task(failure(stage.provider()))
        await until(stage.creates)
        move_on(0.3 * LIMIT)
        async with patience():
            error = await sending

        assert type(error) is OutcomeUnknown

    async def test_a_cancelled_purchase_blocks_nobody(self, stage: Stage, sinch: FakeSinch) -> None:
        """The next sender buys the token instead."""
        sinch.behave(Fault.HANG_AFTER_READING, on="/oauth2/token")
        cut_off = asyncio.create_task(stage.provider().send(TEXT))
        await sinch.until_received(1)
        cut_off.cancel()
        sent = await stage.provider().send(TEXT)

        assert sent.provider_message_id == sinch.batches[0]["id"]
        with pytest.raises(asyncio.CancelledError):
            await cut_off

    async def test_the_token_stays_out_of_sight(self, stage: Stage, sinch: FakeSinch, tokens: AccessTokens) -> None:
        """What was bought shows neither in errors nor in what can be printed."""
        provider = stage.provider()
        await provider.send(TEXT)
        sinch.behave(Reply(403, {"code": "unknown_campaign", "text": f"token {sinch.tokens[0]} may not"}))
        error = await failure(provider)

        assert error.reason == "answered 403"
        assert sinch.tokens[0] not in repr(vars(tokens))

    async def test_projects_do_not_share_tokens(self, stage: Stage, tokens: AccessTokens, sinch: FakeSinch) -> None:
        """Another key buys its own."""
        await stage.provider().send(TEXT)
        other = SinchProject.model_validate(sinch.project | {"project_id": "other"})
        await tokens.get(stage.http, sinch.url, other, timeout=1)

        assert len(sinch.tokens) == 2


class TestHosts:
    def test_the_region_chooses_the_host(self) -> None:
        """Without an address of our own, region and kind say where to send."""
        plan = read_credentials({"kind": "service_plan", "service_plan_id": "p", "api_token": "t", "region": "br"})
        stored = {"kind": "project", "project_id": "p", "key_id": "k", "key_secret": "s", "region": "eu"}

        assert plan.host == "https://br.sms.api.sinch.com"
        assert read_credentials(stored).host == "https://zt.eu.sms.api.sinch.com"


class TestCredentials:
    def test_both_kinds_survive_storage(self) -> None:
        """What is stored reads back as the same credentials, its kind chosen by `kind`."""
        fake = FakeSinch()
        for stored, model in ((fake.service_plan, SinchServicePlan), (fake.project, SinchProject)):
            credentials = read_credentials(stored)

            assert isinstance(credentials, model)
            assert credentials.to_secret_dict() == stored
            assert read_credentials(credentials.to_secret_dict()) == credentials

    @pytest.mark.parametrize("missing", ["kind", "service_plan_id", "api_token", "region"])
    def test_nothing_is_guessed(self, missing: str) -> None:
        """There is no default region and no default kind."""
        stored = {name: value for name, value in FakeSinch().service_plan.items() if name != missing}
        with pytest.raises(ValidationError):
            read_credentials(stored)

    @pytest.mark.parametrize(
        "wrong", [{"region": "evil.example.com/"}, {"service_plan_id": "../../x"}, {"api_token": "a b"}]
    )
    def test_nothing_strange_reaches_an_address(self, wrong: dict[str, str]) -> None:
        """Region and account go into the URL, so they are checked."""
        with pytest.raises(ValidationError):
            read_credentials(FakeSinch().service_plan | wrong)

    def test_secrets_hide(self) -> None:
        """Credentials can be printed."""
        fake = FakeSinch()

        assert fake.api_token not in repr(read_credentials(fake.service_plan))
        assert fake.key_secret not in repr(read_credentials(fake.project))


class TestSignature:
    def test_the_documented_vector_verifies(self) -> None:
        """Body, nonce and time are signed together."""
        verify_signature(SIGNATURE, NONCE, AT, BODY, SECRET, now=0)
        verify_signature(SIGNATURE, NONCE, AT, BODY, SECRET, now=float(AT) + 300, tolerance_seconds=300)

    @pytest.mark.parametrize(
        ("signature", "nonce", "at", "body", "secret"),
        [
            ("", NONCE, AT, BODY, "secret"),
            ("é", NONCE, AT, BODY, "secret"),
            (SIGNATURE, "", AT, BODY, "secret"),
            (SIGNATURE, NONCE, "1634579354", BODY, "secret"),
            (SIGNATURE, NONCE, AT, BODY + b" ", "secret"),
            (SIGNATURE, NONCE, AT, BODY, "other"),
        ],
    )
    def test_anything_changed_is_refused(self, signature: str, nonce: str, at: str, body: bytes, secret: str) -> None:
        """Every part counts."""
        with pytest.raises(Unauthenticated):
            verify_signature(signature, nonce, at, body, SecretStr(secret), now=0)

    @pytest.mark.parametrize("seconds", [-301, 301])
    def test_a_tolerance_bounds_both_sides(self, seconds: int) -> None:
        """Too old is refused, and so is the future."""
        with pytest.raises(Unauthenticated):
            verify_signature(SIGNATURE, NONCE, AT, BODY, SECRET, now=float(AT) + seconds, tolerance_seconds=300)

    @pytest.mark.parametrize("at", ["", "soon", "1e3", "٣", "9" * 13])
    def test_a_time_that_is_no_number_is_refused(self, at: str) -> None:
        """A signed time must be one, if its age matters."""
        signed = b".".join((BODY, NONCE.encode(), at.encode()))
        signature = base64.b64encode(hmac.new(b"secret", signed, hashlib.sha256).digest()).decode()
        with pytest.raises(Unauthenticated, match="not a number"):
            verify_signature(signature, NONCE, at, BODY, SECRET, now=0, tolerance_seconds=300)


class TestStatus:
    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("Queued", MessageStatus.SENT),
            ("DISPATCHED", MessageStatus.SENT),
            ("Unknown", MessageStatus.SENT),
            ("Delivered", MessageStatus.DELIVERED),
            ("DELIVERED", MessageStatus.DELIVERED),
            ("Expired", MessageStatus.UNDELIVERED),
            ("Failed", MessageStatus.UNDELIVERED),
            ("Deleted", MessageStatus.UNDELIVERED),
            ("Rejected", MessageStatus.FAILED),
            ("Aborted", MessageStatus.FAILED),
            ("Cancelled", MessageStatus.FAILED),
        ],
    )
    @pytest.mark.parametrize("summary", [False, True])
    async def test_every_word_has_its_status(self, word: str, status: MessageStatus, summary: bool) -> None:
        """Sinch's words become ours whatever their case, in both kinds of report."""
        batch = {"id": "01BATCH", "to": [TEXT.to_number], "client_reference": TEXT.reference}
        callback = FakeSinch().delivery_report(batch, word, 406, url="https://relay.example.com", summary=summary)
        code = "406" if status in {MessageStatus.UNDELIVERED, MessageStatus.FAILED} else None

        assert parse_status(callback.body) == StatusReport("01BATCH", status, code, TEXT.reference)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"type": "recipient_delivery_report_sms", "batch_id": "b", "status": "Teleported"}',
            b'{"type": "recipient_delivery_report_sms", "batch_id": "b", "status": {}}',
            b'{"type": "delivery_report_sms", "batch_id": "b"}',
            b'{"type": "delivery_report_sms", "batch_id": "b", "statuses": []}',
            b'{"batch_id": "b", "statuses": [{"status": "Failed"}, {"status": "Queued"}]}',
        ],
    )
    def test_a_report_that_says_nothing_definite_changes_nothing(self, body: bytes) -> None:
        """An unknown word, or several statuses for one text, decide nothing."""
        assert parse_status(body) is None

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"batch_id": 7}', b"\xff", b"[" * 5000])
    def test_what_is_no_report_is_refused(self, body: bytes) -> None:
        """A report names its batch."""
        with pytest.raises(InvalidRequest):
            parse_status(body)

    async def test_a_whole_report_verifies_and_reads(self, sinch: FakeSinch, http: httpx.AsyncClient) -> None:
        """What Sinch would post about a sent text is believed and understood."""
        provider = Sinch(http, read_credentials(sinch.service_plan), auth_url=unused_url(), sms_url=sinch.url)
        sent = await provider.send(TEXT)
        callback = sinch.delivery_report(sinch.batches[0], "Delivered", 0, url="https://relay.example.com/s")
        headers = callback.headers

        verify_signature(
            headers["x-sinch-webhook-signature"],
            headers["x-sinch-webhook-signature-nonce"],
            headers["x-sinch-webhook-signature-timestamp"],
            callback.body,
            SecretStr(sinch.webhook_secret),
            now=time.time(),
            tolerance_seconds=60,
        )
        assert parse_status(callback.body) == StatusReport(
            sent.provider_message_id, MessageStatus.DELIVERED, None, TEXT.reference
        )
