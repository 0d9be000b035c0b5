"""What every text provider must do, whichever vendor is behind it; a vendor's test class inherits these tests."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

from domain.errors import OutcomeUnknown, ProviderError, ProviderRejected, ProviderUnavailable
from domain.messages import OutboundText, SentText, TextProvider
from domain.statuses import MessageStatus
from tests.support.faulty_http import FakeVendor, Fault, Reply, unused_url
from tests.support.waiting import patience, until

T = TypeVar("T")

TEXT = OutboundText(
    from_number="+14165550100",
    to_number="+14165550123",
    text="Your table for two is booked for 19:30, see you there — é 你好 🍜",
    reference="6a1b2c3d4e5f6a7b8c9d0e1f",
)
# A limit that no machine is too slow for; it ends when the test moves the clock on.
LIMIT = 3600.0
# A limit that must end before what hangs does.
BRIEF = 0.25


@dataclass
class Stage:
    """One vendor set up for testing.

    `make(url, timeout, http)` builds its client, and `on` is where creates go. `secrets` must never show; `names` are
    the account's identifiers, which may be printed but not quoted in errors.
    """

    fake: FakeVendor
    make: Callable[[str, float, httpx.AsyncClient], TextProvider]
    http: httpx.AsyncClient
    on: str
    secrets: tuple[str, ...]
    names: tuple[str, ...] = ()

    def provider(self, *, url: str | None = None, timeout: float = LIMIT) -> TextProvider:
        """Return a client of the fake, or of whatever is at `url`."""
        return self.make(url or self.fake.url, timeout, self.http)

    def creates(self) -> list[str]:
        """Return the target of every create the vendor received."""
        return [request.target for request in self.fake.requests if self.on in request.target]


async def failure(provider: TextProvider, message: OutboundText = TEXT) -> ProviderError:
    """Send `message` and return the error that must come."""
    with pytest.raises(ProviderError) as caught:
        await provider.send(message)
    return caught.value


async def cut_off(work: Awaitable[T], once: Callable[[], Any], move_on: Callable[[float], None]) -> T:
    """Let `LIMIT` seconds pass as soon as `once()` is true, and return the result of `work`."""
    task = asyncio.ensure_future(work)
    await until(lambda: once() or task.done(), "the request got as far as it should")
    move_on(LIMIT)
    async with patience():
        return await task


class TextProviderContract:
    """The promises of `domain.messages.TextProvider`."""

    async def test_an_accepted_text_is_sent_with_the_vendors_id(self, stage: Stage) -> None:
        """An accepted text has the vendor's own id and counts as sent."""
        sent = await stage.provider().send(TEXT)

        assert isinstance(sent, SentText)
        assert sent.provider_message_id
        assert sent.status is MessageStatus.SENT
        assert len(stage.creates()) == 1

    async def test_two_texts_have_two_ids(self, stage: Stage) -> None:
        """Every send is a message of its own."""
        provider = stage.provider()

        assert await provider.send(TEXT) != await provider.send(TEXT)

    async def test_nobody_listening_means_unavailable(self, stage: Stage) -> None:
        """A refused connection carried nothing, so trying again makes sense."""
        error = await failure(stage.provider(url=unused_url()))

        assert type(error) is ProviderUnavailable
        assert "cannot be reached" in error.reason

    async def test_a_name_that_does_not_resolve_means_unavailable(self, stage: Stage) -> None:
        """A name nobody knows carried nothing."""
        assert type(await failure(stage.provider(url="http://nobody.invalid"))) is ProviderUnavailable

    async def test_a_failed_tls_handshake_means_unavailable(self, stage: Stage) -> None:
        """A peer that does not speak TLS got nothing readable."""
        error = await failure(stage.provider(url=stage.fake.url.replace("http:", "https:")))

        assert type(error) is ProviderUnavailable
        assert stage.fake.requests == []

    async def test_a_connection_never_made_in_time_means_unavailable(
        self, stage: Stage, move_on: Callable[[float], None]
    ) -> None:
        """A TLS handshake that hangs until the time-out carried nothing."""
        greeted = asyncio.Event()

        async def shake_no_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            greeted.set()
            with suppress(ConnectionError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(shake_no_hands, "127.0.0.1", 0) as server:
            provider = stage.provider(url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            error = await cut_off(failure(provider), greeted.is_set, move_on)

        assert type(error) is ProviderUnavailable
        assert "within" in error.reason

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.RESET_AFTER_READING,
            Fault.CLOSE_AFTER_READING,
            Fault.RESET_AFTER_PROCESSING,
            Fault.RESET_INSIDE_BODY,
        ],
    )
    async def test_a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown(
        self, stage: Stage, fault: Fault
    ) -> None:
        """The vendor had the whole request; whether it acted on it, nobody can tell, and it is not sent again."""
        stage.fake.behave(fault, on=stage.on)

        assert type(await failure(stage.provider())) is OutcomeUnknown
        assert len(stage.creates()) == 1

    @pytest.mark.parametrize("fault", [Fault.HANG_AFTER_READING, Fault.HANG_AFTER_PROCESSING, Fault.HANG_INSIDE_BODY])
    async def test_silence_after_the_request_leaves_the_outcome_unknown(
        self, stage: Stage, fault: Fault, move_on: Callable[[float], None]
    ) -> None:
        """A vendor that falls silent may have acted, and it is not asked again."""
        stage.fake.behave(fault, on=stage.on)
        answered: list[httpx.Response] = []

        async def hear(response: httpx.Response) -> None:
            if stage.on in str(response.url):
                answered.append(response)

        stage.http.event_hooks = {"response": [hear]}
        is_silent = (lambda: answered) if fault is Fault.HANG_INSIDE_BODY else stage.creates

        assert type(await cut_off(failure(stage.provider()), is_silent, move_on)) is OutcomeUnknown
        assert len(stage.creates()) == 1

    @pytest.mark.parametrize("status", [408, 425, 429])
    async def test_a_status_that_says_not_processed_means_unavailable(self, stage: Stage, status: int) -> None:
        """Such an answer promises that nothing was done, but nothing is repeated here."""
        stage.fake.behave(Reply(status), on=stage.on)

        error = await failure(stage.provider())

        assert (type(error), error.status) == (ProviderUnavailable, status)
        assert len(stage.creates()) == 1

    @pytest.mark.parametrize("status", [301, 307, 308, 400, 401, 403, 404, 405, 409, 410, 415, 422])
    async def test_a_refusal_means_rejected(self, stage: Stage, status: int) -> None:
        """The same request would be refused again; a redirect is not followed."""
        stage.fake.behave(Reply(status, headers={"Location": f"{stage.fake.url}/elsewhere"}), on=stage.on)

        error = await failure(stage.provider())

        assert (type(error), error.status) == (ProviderRejected, status)
        assert len(stage.creates()) == 1

    @pytest.mark.parametrize("status", [303, 500, 502, 503, 504, 599])
    async def test_a_vendors_own_fault_leaves_the_outcome_unknown(self, stage: Stage, status: int) -> None:
        """No vendor promises that a 5xx was not processed, a 503 included."""
        stage.fake.behave(Reply(status, body=b"<html>Bad gateway</html>", headers={"Retry-After": "1"}), on=stage.on)

        error = await failure(stage.provider())

        assert (type(error), error.status) == (OutcomeUnknown, status)
        assert "html" not in str(error)
        assert len(stage.creates()) == 1

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(200),
            Reply(201, body=b"OK"),
            Reply(201, body=b"\xff\xfe\x00"),
            Reply(200, body=b'{"sid": "SM1", "id": "01'),
            Reply(201, []),
            Reply(201, {}),
            Reply(201, {"sid": None, "id": None}),
            Reply(201, {"sid": "", "id": ""}),
            Reply(201, {"sid": 7, "id": {"a": 1}}),
            Reply(201, {"sid": "S" * 5000, "id": "S" * 5000}),
            Reply(201, body=b"[" * 50_000),
            Reply(201, body=b'{"sid": "SM1", "id": "01", "body": "' + b"x" * 2_000_000 + b'"}'),
            Reply(201, body=b"not gzip at all", headers={"Content-Encoding": "gzip"}),
        ],
    )
    async def test_a_success_that_makes_no_sense_leaves_the_outcome_unknown(self, stage: Stage, reply: Reply) -> None:
        """A 2xx without a message id says neither yes nor no."""
        stage.fake.behave(reply, on=stage.on)

        assert type(await failure(stage.provider())) is OutcomeUnknown
        assert len(stage.creates()) == 1

    async def test_a_refusal_counts_even_when_its_body_breaks_off(self, stage: Stage) -> None:
        """The status line alone says that nothing was done."""
        stage.fake.behave(Reply(400, {"message": "No", "text": "No"}, is_half=True), on=stage.on)

        assert type(await failure(stage.provider())) is ProviderRejected

    async def test_an_error_never_repeats_what_is_private(self, stage: Stage) -> None:
        """A vendor that quotes number, text and credentials is not quoted, in whatever shape it answers."""
        secrets = (
            TEXT.from_number,
            TEXT.to_number,
            TEXT.to_number.lstrip("+"),
            TEXT.text,
            *stage.secrets,
            *stage.names,
        )
        provider = stage.provider()
        for secret in secrets:
            words = f"cannot do this for {secret} today"
            shapes = [
                Reply(400, {"message": words, "text": words, "title": words, "code": secret}),
                Reply(422, {"detail": words, "error_message": words, "error_code": secret}),
                Reply(403, body=words.encode()),
                Reply(500, {"message": words, "text": words}),
                Reply(201, {"status": "failed", "error_code": secret, "error_message": words}),
            ]
            for shape in shapes:
                stage.fake.behave(shape, on=stage.on)
                error = await failure(provider)
                told = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))

                assert [one for one in secrets if one in told] == []

    async def test_a_client_shows_no_secret(self, stage: Stage) -> None:
        """A client and what it holds can be printed."""
        shown = repr(vars(stage.provider())) + repr(TEXT)

        assert [secret for secret in stage.secrets if secret in shown] == []
        assert TEXT.text not in shown
        assert TEXT.to_number not in shown

    async def test_cancelling_leaves_no_half_used_connection(self, stage: Stage) -> None:
        """A send cut off by its caller ends at once, and the next one gets its own answer over another connection."""
        provider = stage.provider()
        stage.fake.behave(Fault.HANG_AFTER_PROCESSING, on=stage.on)
        hanging = asyncio.create_task(provider.send(TEXT))
        while not stage.creates():
            await stage.fake.until_received(len(stage.fake.requests) + 1)
        hanging.cancel()

        with pytest.raises(asyncio.CancelledError):
            await hanging
        stage.fake.release()
        sent = await provider.send(TEXT)

        first, second = [request for request in stage.fake.requests if stage.on in request.target]
        assert first.connection != second.connection
        assert sent.provider_message_id

    async def test_waiting_for_a_free_connection_means_unavailable(self, stage: Stage) -> None:
        """A text that found no connection in time never left."""
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1), trust_env=False) as narrow:
            stage.fake.behave(Fault.HANG_AFTER_READING, always=True, on=stage.on)
            patient = asyncio.create_task(stage.make(stage.fake.url, LIMIT, narrow).send(TEXT))
            while not stage.creates():
                await stage.fake.until_received(len(stage.fake.requests) + 1)
            error = await failure(stage.make(stage.fake.url, BRIEF, narrow))
            patient.cancel()
            await asyncio.gather(patient, return_exceptions=True)

        assert type(error) is ProviderUnavailable
        assert len(stage.creates()) == 1

    async def test_a_vendors_cookie_is_not_carried_along(self, stage: Stage) -> None:
        """Organizations share a client, so nothing a vendor leaves behind reaches the next request."""
        stage.fake.behave(Reply(400, headers={"Set-Cookie": "session=of-somebody-else; Path=/"}), on=stage.on)
        provider = stage.provider()
        await failure(provider)
        await provider.send(TEXT)

        assert "cookie" not in stage.fake.requests[-1].headers

    async def test_text_that_is_not_unicode_is_rejected_unsent(self, stage: Stage) -> None:
        """A lone surrogate cannot be written down, so nothing leaves."""
        broken = OutboundText(TEXT.from_number, TEXT.to_number, "half of an emoji: \ud83d", TEXT.reference)

        assert type(await failure(stage.provider(), broken)) is ProviderRejected
        assert stage.creates() == []
