"""What all vendors have in common: one request, and what may be told about its failure."""

import asyncio
import gzip
import ssl
from contextlib import suppress

import httpx
import pytest

from domain.errors import ProviderUnavailable
from providers.exchange import VendorAnswer, code_text, exchange, quotable
from tests.support.faulty_http import Fault, Reply
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import PATIENCE_SECONDS


async def ask(http: httpx.AsyncClient, url: str) -> VendorAnswer:
    return await exchange(http, "vendor", "GET", url, headers={}, timeout=PATIENCE_SECONDS)


class TestQuoting:
    @pytest.mark.parametrize(
        ("words", "quoted"),
        [
            ("The queue is full", "The queue is full"),
            ("  two\r\n lines\x00\x1b ", "two lines"),
            ("Call 1 (416) 555-0100 or +44 20 7946 0958 now", "Call [number] or [number] now"),
            ("error 21610 at 12:30", "error 21610 at 12:30"),
            ("x" * 500, "x" * 200),
            ("", None),
            (" \n ", None),
            (None, None),
            (7, None),
            ({"a": 1}, None),
        ],
    )
    def test_words_become_one_short_line_without_numbers(self, words: object, quoted: str | None) -> None:
        """Controls and line breaks vanish, long numbers are hidden, the rest is cut."""
        assert quotable(words, []) == quoted

    @pytest.mark.parametrize(
        "words",
        [
            "Body 'The secret meeting is at noon' refused",
            "body THE SECRET MEETING IS AT NOON refused",
            "body starts with The secret m...",
            "body ends with ...ing is at noon",
            "body The  secret\nmeeting is at noon",
        ],
    )
    def test_a_piece_of_something_private_silences_the_rest(self, words: str) -> None:
        """A dozen characters in a row are enough, whatever their case and spacing."""
        assert quotable(words, ["The secret\tmeeting is at noon"]) is None

    def test_something_short_is_private_as_a_whole(self) -> None:
        """A text of two letters is not to be repeated either; nothing at all silences nothing."""
        assert quotable("Message OK refused", ["ok"]) is None
        assert quotable("Message refused", ["", " "]) == "Message refused"


class TestCodes:
    @pytest.mark.parametrize(
        ("code", "text"),
        [
            (21610, "21610"),
            ("21610", "21610"),
            ("E42", "E42"),
            ("syntax_invalid_json", "syntax_invalid_json"),
            ("value_error.missing", "value_error.missing"),
            (14165550123, None),
            ("+14165550123", None),
            ("sk_0a1b2c", None),
            ("x" * 65, None),
            ("two words", None),
            ("", None),
            (True, None),
            (None, None),
            (1.5, None),
            ([], None),
        ],
    )
    def test_only_a_word_or_a_short_number_is_a_code(self, code: object, text: str | None) -> None:
        """A number or a token in its place is dropped."""
        assert code_text(code) == text


class TestAnswers:
    async def test_an_encoded_answer_is_decoded(self, http: httpx.AsyncClient) -> None:
        """We ask for plain answers, and read a compressed one all the same."""
        async with FakeElevenLabs() as fake:
            packed = gzip.compress(b'{"a": 1}')
            fake.behave(Reply(200, body=packed, headers={"Content-Encoding": "gzip"}))
            answer = await ask(http, fake.url)

        assert answer.document() == {"a": 1}

    async def test_an_endless_answer_is_cut(self, http: httpx.AsyncClient) -> None:
        """A quarter of a megabyte is kept, and not believed as a whole."""
        async with FakeElevenLabs() as fake:
            fake.behave(Reply(200, body=b'{"a": "' + b"x" * 3_000_000 + b'"}'))
            answer = await ask(http, fake.url)

        assert len(answer.body) == 256 * 1024
        assert not answer.is_whole
        assert answer.document() == {}

    async def test_an_address_that_is_none_means_unavailable(self, http: httpx.AsyncClient) -> None:
        """A bad base address carried nothing, and is not repeated in the error."""
        for url in ("http://[", "ftp://127.0.0.1/", "http:///"):
            with pytest.raises(ProviderUnavailable):
                await ask(http, url)

    async def test_a_connection_is_kept_and_used_again(self, http: httpx.AsyncClient) -> None:
        """Requests that end well share one connection, whatever their status."""
        async with FakeElevenLabs() as fake:
            for _ in range(3):
                await ask(http, fake.url)

            assert fake.connections == 1

    async def test_a_connection_the_vendor_closed_is_not_used_again(self, http: httpx.AsyncClient) -> None:
        """After a broken answer the next request starts afresh and succeeds."""
        async with FakeElevenLabs() as fake:
            fake.behave(Fault.RESET_INSIDE_BODY)
            broken, whole = await ask(http, fake.url), await ask(http, fake.url)

        assert (broken.status, broken.is_whole, whole.is_whole) == (401, False, True)
        assert fake.connections == 2

    async def test_a_connection_reset_before_it_was_used_fails_cleanly(self, http: httpx.AsyncClient) -> None:
        """The request never arrives, and the error is one of ours."""
        async with FakeElevenLabs() as fake:
            fake.behave(Fault.RESET_BEFORE_READING)
            with pytest.raises(ProviderUnavailable):
                await ask(http, fake.url)

            assert fake.requests == []

    async def test_cancelling_a_tls_handshake_closes_the_socket(self, http: httpx.AsyncClient) -> None:
        """A request cut off before it was connected leaves nothing open."""
        reached, left = asyncio.Event(), asyncio.Event()

        async def shake_no_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            reached.set()
            with suppress(ConnectionError):
                await reader.read(-1)
            left.set()
            writer.close()

        async with await asyncio.start_server(shake_no_hands, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            asking = asyncio.create_task(ask(http, f"https://127.0.0.1:{port}"))
            await reached.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

            await asyncio.wait_for(left.wait(), PATIENCE_SECONDS)

    @pytest.mark.parametrize("step", [Fault.RESET_AFTER_READING, Fault.CLOSE_AFTER_READING, Reply(502)])
    async def test_a_proxy_that_fails_us_means_unavailable(self, tls: ssl.SSLContext, step: Fault | Reply) -> None:
        """What a proxy learned, asked for a tunnel, never reached the vendor."""
        async with FakeElevenLabs() as fake, httpx.AsyncClient(proxy=fake.url, trust_env=False, verify=tls) as client:
            fake.behave(step)
            with pytest.raises(ProviderUnavailable):
                await exchange(client, "vendor", "POST", "https://a.invalid", headers={}, timeout=60, document={"a": 1})

            assert [request.method for request in fake.requests] == ["CONNECT"]


async def test_a_vendor_is_told_who_asks_and_what_is_read(http: httpx.AsyncClient) -> None:
    """Some refuse requests without a User-Agent; answers are JSON, as they are."""
    async with FakeElevenLabs() as fake:
        await ask(http, f"{fake.url}/v1/convai/settings")
        headers = fake.requests[0].headers

    wanted = {"user-agent": "tether-relay", "accept": "application/json", "accept-encoding": "identity"}
    assert {name: headers.get(name) for name in wanted} == wanted
