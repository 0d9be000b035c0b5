"""Recordings are fetched from public addresses only, within limits, and every refusal says why."""

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.addresses import Network
from domain.errors import RecordingRejected
from providers.download import Downloader, DownloadLimits, Resolver
from tests.support.certificates import Authority
from tests.support.laboratory import (
    Laboratory,
    Script,
    answer,
    falling_silent,
    laboratory,
    repeating,
    saying,
    taking_turns,
)
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, SLOWNESS, patience

MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\xff\xfb\x90\x64" + bytes(413)
LOOPBACK = (ip_network("127.0.0.1/32"),)
LIMITS = DownloadLimits(max_bytes=1_000_000, total_seconds=600, answer_seconds=600, stall_seconds=600)
NOT_PUBLIC = "its host does not have a public address"


async def nobody(host: str, port: int) -> list[str]:
    """Resolve nothing: a test that names no host must not look one up."""
    raise AssertionError(f"{host}:{port} was looked up")


def directory(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """Return a resolver that gives one of `answers` after the other, and the list of names it is asked for."""
    asked: list[str] = []
    remaining = list(answers)

    async def resolver(host: str, _: int) -> list[str]:
        asked.append(host)
        return remaining.pop(0)

    return resolver, asked


def downloader(
    *,
    limits: DownloadLimits = LIMITS,
    allowed: Sequence[Network] = LOOPBACK,
    resolver: Resolver = nobody,
    tls: ssl.SSLContext | None = None,
) -> Downloader:
    return Downloader(limits, allowed_networks=allowed, resolver=resolver, tls=tls or _UNTRUSTING)


_UNTRUSTING = ssl.create_default_context(cafile=None, cadata=None, capath="/nonexistent")


async def fetched(source: Downloader, url: str) -> bytes:
    async with source.open(url) as recording:
        return b"".join([chunk async for chunk in recording.chunks()])


async def refusal(source: Downloader, url: str) -> str:
    """Return the reason `url` is refused with; the whole message is one short line that names no address."""
    with pytest.raises(RecordingRejected) as caught:
        await fetched(source, url)
    message = str(caught.value)
    assert "127.0.0" not in message
    assert "\n" not in message
    assert len(message) < 120
    return message.removeprefix("Recording could not be downloaded: ")


async def refusal_of(script: Script, limits: DownloadLimits = LIMITS) -> str:
    async with laboratory(script) as lab:
        return await refusal(downloader(limits=limits), f"{lab.url}/a.mp3")


@pytest.fixture
async def canary() -> AsyncIterator[Laboratory]:
    """A server on another loopback address, which nothing allows: it must never be connected to."""
    # A port that is free on the allowed address as well, where tests listen on the same one.
    async with laboratory(saying(answer(MP3)), host="127.0.0.2", port=free_port()) as lab:
        yield lab
        assert lab.connections == 0


class TestFetching:
    """What a good server gives arrives as it is."""

    async def test_the_bytes_arrive_unchanged(self) -> None:
        """The body is handed on byte for byte."""
        body = MP3 + bytes(range(256)) * 2000
        async with laboratory(saying(answer(body))) as lab:
            assert await fetched(downloader(), f"{lab.url}/a.mp3") == body

    async def test_a_chunked_body_without_length_arrives(self) -> None:
        """Chunked transfer is read as it comes, however small the pieces."""
        pieces = [b"1\r\n%c\r\n" % byte for byte in MP3]
        start = answer(content_length="", transfer_encoding="chunked")
        async with laboratory(saying(start, *pieces, b"0\r\n\r\n")) as lab:
            assert await fetched(downloader(), lab.url) == MP3

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (MP3, "audio/mpeg"),
            (b"RIFF\x24\x08\0\0WAVEfmt ", "audio/wav"),
            (b"OggS" + bytes(30), "audio/ogg"),
            (b"fLaC" + bytes(30), "audio/flac"),
            (b"\0\0\0\x20ftypM4A \0\0\0\0", "audio/mp4"),
        ],
    )
    async def test_the_type_is_what_the_bytes_are(self, body: bytes, content_type: str) -> None:
        """The server's own Content-Type is not believed."""
        html = saying(answer(body, content_type="text/html"))
        async with laboratory(html) as lab, downloader().open(lab.url) as recording:
            assert recording.content_type == content_type

    async def test_the_request_is_plain(self, monkeypatch: pytest.MonkeyPatch, canary: Laboratory) -> None:
        """Path and query go as given, no credentials go along, and no proxy of the environment is used."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, canary.url)
        async with laboratory(saying(answer(MP3))) as lab:
            await fetched(downloader(), f"{lab.url}/a%2Fb.mp3?sig=x%20y&n=1#here")
        first, *headers = lab.requests[0].split("\r\n")
        assert first == "GET /a%2Fb.mp3?sig=x%20y&n=1 HTTP/1.1"
        assert sorted(headers) == sorted(
            [
                f"Host: {lab.address}",
                "Accept: audio/*, application/octet-stream;q=0.9, */*;q=0.1",
                "Accept-Encoding: identity",
                "Connection: close",
                "User-Agent: tether-relay",
                "",
                "",
            ]
        )

    async def test_a_long_body_is_never_held(self) -> None:
        """Forty megabytes pass through in small chunks and little memory."""
        size = 40_000_000
        script = repeating(answer(content_length=str(size)) + MP3, bytes(65536))
        largest = total = 0
        async with laboratory(script) as lab:
            source = downloader(limits=DownloadLimits(max_bytes=size, total_seconds=600, stall_seconds=600))
            tracemalloc.start()
            async with source.open(lab.url) as recording:
                async for chunk in recording.chunks():
                    largest, total = max(largest, len(chunk)), total + len(chunk)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert total == size
        assert largest <= 65536 + 64
        assert peak < size / 3

    async def test_a_reader_that_gives_up_ends_the_connection(self) -> None:
        """Leaving the block early closes the connection at once."""
        async with laboratory(repeating(answer(content_length="900000") + MP3, b"\0", every=0.01)) as lab:
            with pytest.raises(RuntimeError, match="enough"):
                async with downloader().open(lab.url):
                    raise RuntimeError("enough")
            await asyncio.wait_for(lab.ended.wait(), PATIENCE_SECONDS)


class TestNames:
    """A name is looked up once, checked, and then only the checked addresses matter."""

    async def test_the_name_goes_into_the_host_header_only(self) -> None:
        """The connection goes to the address, the request to the name."""
        resolver, asked = directory(["127.0.0.1"])
        async with laboratory(saying(answer(MP3))) as lab:
            await fetched(downloader(resolver=resolver), f"http://Calls.Example:{lab.port}/a")
        assert asked == ["calls.example"]
        assert f"\r\nHost: calls.example:{lab.port}\r\n" in lab.requests[0]

    async def test_a_second_answer_of_the_name_server_cannot_matter(self, canary: Laboratory) -> None:
        """An answer that changes between check and connection is never asked for."""
        resolver, asked = directory(["127.0.0.1"], ["127.0.0.2"])
        async with laboratory(saying(answer(MP3)), port=canary.port) as lab:
            assert await fetched(downloader(resolver=resolver), f"http://rebinding.example:{lab.port}/") == MP3
        assert asked == ["rebinding.example"]

    @pytest.mark.parametrize(
        "addresses",
        [
            ["127.0.0.2"],
            ["127.0.0.1", "127.0.0.2"],
            ["127.0.0.1"] * 5 + ["127.0.0.2"],
            ["8.8.8.8", "10.0.0.1"],
            ["::1"],
            ["::ffff:127.0.0.1"],
            ["169.254.169.254"],
            ["fe80::1%lo"],
        ],
    )
    async def test_one_bad_address_condemns_the_name(self, addresses: list[str], canary: Laboratory) -> None:
        """A name that also resolves to a refused address is not connected to at all."""
        resolver, _ = directory(addresses)
        reason = await refusal(downloader(resolver=resolver), f"http://mixed.example:{canary.port}/")
        assert reason == NOT_PUBLIC

    async def test_the_next_address_is_tried_when_one_does_not_answer(self) -> None:
        """A name with a dead address first is still reached."""
        allowed = [ip_network("127.0.0.0/8")]
        resolver, _ = directory(["127.0.0.9", "127.0.0.1"])
        async with laboratory(saying(answer(MP3))) as lab:
            source = downloader(resolver=resolver, allowed=allowed)
            assert await fetched(source, f"http://two.example:{lab.port}/") == MP3

    @pytest.mark.parametrize("error", [OSError("no such host"), ValueError("odd")])
    async def test_a_failing_look_up_is_a_refusal(self, error: Exception) -> None:
        """A name nobody knows is a plain refusal."""

        async def resolver(host: str, port: int) -> list[str]:
            raise error

        assert (
            await refusal(downloader(resolver=resolver), "http://x.example/") == "its host name could not be resolved"
        )

    @pytest.mark.parametrize("addresses", [[], ["not an address"]])
    async def test_a_senseless_look_up_is_a_refusal(self, addresses: list[str]) -> None:
        """No answer and a nonsensical answer are the same as no such name."""
        resolver, _ = directory(addresses)
        assert (
            await refusal(downloader(resolver=resolver), "http://x.example/") == "its host name could not be resolved"
        )

    @pytest.mark.parametrize(
        ("known_as", "given"),
        [
            (["93.184.215.14"], "93.184.215.14"),
            (["93.184.215.14", "2606:2800:21f::14"], "2606:2800:21f:0:0:0:0:14"),
            (["93.184.215.14"], "64:ff9b::5db8:d70e"),
            (["64:ff9b::5db8:d70e"], "93.184.215.14"),
        ],
    )
    async def test_recording_is_refused_if_its_host_has_an_address_this_server_is_known_by(
        self, known_as: list[str], given: str
    ) -> None:
        """In either of their spellings, and whatever the recording's host is called."""
        resolver, asked = directory([given], known_as)
        source = Downloader(LIMITS, own_names=["relay.example"], resolver=resolver, tls=_UNTRUSTING)
        assert await refusal(source, "http://calls.example/") == "its host is this server"
        assert asked == ["calls.example", "relay.example"]

    async def test_the_system_resolver_is_the_default(self, canary: Laboratory) -> None:
        """Without a resolver of its own it asks the system, and checks what that says."""
        source = Downloader(LIMITS, tls=_UNTRUSTING)
        assert await refusal(source, f"http://localhost:{canary.port}/") == NOT_PUBLIC


ODD = "its address is not written as four decimal numbers"
INVALID = "it is not a valid URL"
BAD_NAME = "its host name is not valid"


class TestAddresses:
    """No spelling of a refused address gets through, and none of them is even looked up."""

    @pytest.mark.parametrize(
        ("host", "reason"),
        [
            ("127.0.0.2", NOT_PUBLIC),
            ("127.0.0.2.", NOT_PUBLIC),
            ("2130706434", ODD),
            ("0x7f000002", ODD),
            ("0x7F.2", ODD),
            ("127.2", ODD),
            ("127.0.2", ODD),
            ("0177.0.0.2", INVALID),
            ("0177.2", ODD),
            ("017700000002", ODD),
            ("127.0.0.0x2", ODD),
            ("0x7f.0.0.2", ODD),
            ("0x", ODD),
            ("127.0.0.2.5", ODD),
            ("256.0.0.1", INVALID),
            ("0", ODD),
            ("0.0.0.0", NOT_PUBLIC),
            ("10.0.0.1", NOT_PUBLIC),
            ("169.254.169.254", NOT_PUBLIC),
            ("100.100.100.200", NOT_PUBLIC),
            ("[::]", NOT_PUBLIC),
            ("[::1]", NOT_PUBLIC),
            ("[::ffff:127.0.0.2]", NOT_PUBLIC),
            ("[::ffff:7f00:2]", NOT_PUBLIC),
            ("[::127.0.0.2]", NOT_PUBLIC),
            ("[64:ff9b::127.0.0.2]", NOT_PUBLIC),
            ("[2002:7f00:2::]", NOT_PUBLIC),
            ("[fd00:ec2::254]", NOT_PUBLIC),
            ("[fe80::1%25lo]", BAD_NAME),
            ("[fe80::1%lo]", BAD_NAME),
            ("[127.0.0.2]", INVALID),
            ("[localhost]", INVALID),
            ("[::1", INVALID),
            ("%31%32%37.0.0.2", BAD_NAME),
            ("127%2e0.0.2", BAD_NAME),
            ("localhost%00.example", BAD_NAME),
            ("１２７.０.０.２", INVALID),
            ("127。0。0。2", NOT_PUBLIC),
            ("ⓛocalhost", INVALID),
            ("127.0.0.2 .example", BAD_NAME),
            ("127.0.0.2\\.example", BAD_NAME),
            ("a..example", BAD_NAME),
            ("-a.example", BAD_NAME),
            ("a" * 64 + ".example", BAD_NAME),
            ("a." * 127 + "example", BAD_NAME),
            ("", BAD_NAME),
            (".", BAD_NAME),
        ],
    )
    async def test_every_spelling_is_refused(self, host: str, reason: str, canary: Laboratory) -> None:
        """Decimal, octal, hexadecimal, shortened, mapped, embedded, encoded and wide spellings lead nowhere."""
        assert await refusal(downloader(), f"http://{host}:{canary.port}/a.mp3") == reason

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("file:///etc/passwd", "only http and https URLs are accepted"),
            ("ftp://127.0.0.2/a.mp3", "only http and https URLs are accepted"),
            ("gopher://127.0.0.2:25/_EHLO", "only http and https URLs are accepted"),
            ("//127.0.0.2/a.mp3", "only http and https URLs are accepted"),
            ("", "only http and https URLs are accepted"),
            ("http://user:secret@127.0.0.1/a.mp3", "its URL contains credentials"),
            ("http://127.0.0.1\\@127.0.0.2/a.mp3", "its URL contains credentials"),
            ("http://127.0.0.1#@127.0.0.2/a.mp3", "the server could not be reached"),
            ("http://127.0.0.1:22/a.mp3", "its port is not allowed"),
            ("http://127.0.0.1:25/a.mp3", "its port is not allowed"),
            ("http://127.0.0.1:0/a.mp3", "its port is not allowed"),
            ("http://127.0.0.1:-80/a.mp3", "its port is not allowed"),
            ("http://127.0.0.1:65536/a.mp3", "its port is not allowed"),
            ("http://127.0.0.1:http/a.mp3", INVALID),
            ("http://127.0.0.1/a\r\nHost: b", INVALID),
            ("http://127.0.0.1/\ud800", INVALID),
            ("http://127.0.0.1/" + "a" * 70_000, INVALID),
        ],
    )
    async def test_other_urls_are_refused(self, url: str, reason: str) -> None:
        """Other schemes, credentials, odd ports and broken URLs each have their reason."""
        assert await refusal(downloader(), url) == reason

    @given(st.sampled_from(["http://", "https://", "http:", ""]), st.text(max_size=40))
    def test_any_text_is_refused_for_a_reason(self, prefix: str, rest: str) -> None:
        """No text makes the downloader fail in another way than by refusing."""

        async def resolver(host: str, port: int) -> list[str]:
            return ["10.0.0.1"]

        asyncio.run(refusal(downloader(resolver=resolver, allowed=()), prefix + rest))

    async def test_nothing_but_public_addresses_is_allowed_by_default(self, canary: Laboratory) -> None:
        """Loopback is reachable only because these tests allow it."""
        assert await refusal(downloader(allowed=()), f"{canary.url}/a.mp3") == NOT_PUBLIC

    async def test_ipv6_networks_can_be_allowed(self) -> None:
        """The allowlist speaks both address families."""
        async with laboratory(saying(answer(MP3)), host="::1") as lab:
            source = downloader(allowed=[ip_network("::1/128")])
            assert await fetched(source, f"http://[::1]:{lab.port}/") == MP3
            assert f"\r\nHost: [::1]:{lab.port}\r\n" in lab.requests[0]


def redirecting(times: int) -> Script:
    """Return the script that redirects `times` times and then answers with a recording."""
    return taking_turns(*[saying(answer(status="302 Found", location="/on"))] * times, saying(answer(MP3)))


class TestRedirects:
    """Each redirect is checked like a URL of its own."""

    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
    async def test_redirects_are_followed(self, status: str) -> None:
        """All five kinds lead on, relative targets included, and nothing the server set goes along."""
        moved = saying(answer(b"moved", status, location="../b?c=1", set_cookie="k=v"))
        async with laboratory(taking_turns(moved, saying(answer(MP3)))) as lab:
            assert await fetched(downloader(), f"{lab.url}/x/y/a") == MP3
        assert [request.split(" HTTP")[0] for request in lab.requests] == ["GET /x/y/a", "GET /x/b?c=1"]
        assert "ookie" not in lab.requests[1]
        assert "eferer" not in lab.requests[1]

    async def test_five_redirects_are_followed(self) -> None:
        """Five are enough for every honest server."""
        async with laboratory(redirecting(5)) as lab:
            assert await fetched(downloader(), lab.url) == MP3

    async def test_a_sixth_redirect_is_not_followed(self) -> None:
        """Whatever would come after it is never asked for."""
        async with laboratory(redirecting(6)) as lab:
            assert await refusal(downloader(), lab.url) == "it redirects more than 5 times"
        assert lab.connections == 6

    @pytest.mark.parametrize(
        ("location", "reason"),
        [
            ("http://127.0.0.2:{port}/", NOT_PUBLIC),
            ("//127.0.0.2:{port}/", NOT_PUBLIC),
            ("http://2130706434:{port}/", ODD),
            ("http://[::ffff:127.0.0.2]:{port}/", NOT_PUBLIC),
            ("http://user@127.0.0.1:{port}/", "its URL contains credentials"),
            ("http://127.0.0.1:22/", "its port is not allowed"),
            ("file:///etc/passwd", "only http and https URLs are accepted"),
            ("http://[::1", "it redirects to an invalid URL"),
            ("http://127.0.0.1:http/", "it redirects to an invalid URL"),
            ("", "it redirects to nowhere"),
        ],
    )
    async def test_a_redirect_is_checked_from_scratch(self, location: str, reason: str, canary: Laboratory) -> None:
        """A good host that points at a bad one is of no use."""
        reply = answer(status="302 Found", location=location.format(port=canary.port))
        assert await refusal_of(saying(reply)) == reason

    async def test_a_name_is_looked_up_again_after_a_redirect(self, canary: Laboratory) -> None:
        """A redirect to the same name trusts nothing learnt before."""
        resolver, asked = directory(["127.0.0.1"], ["127.0.0.2"])
        async with laboratory(saying(answer(status="302 Found", location="/b")), port=canary.port) as lab:
            reason = await refusal(downloader(resolver=resolver), f"http://turning.example:{lab.port}/")
        assert reason == NOT_PUBLIC
        assert asked == ["turning.example", "turning.example"]

    async def test_an_endless_body_of_a_redirect_is_not_read(self) -> None:
        """Only the head of a redirect matters."""
        endless = repeating(answer(status="302 Found", location="/b", content_length=str(10**12)), bytes(65536))
        async with laboratory(taking_turns(endless, saying(answer(MP3)))) as lab:
            assert await fetched(downloader(), lab.url) == MP3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class TestTls:
    """Certificates are verified for the name in the URL, although the connection goes to an address."""

    async def test_the_certificate_is_verified_for_the_name(self, authority: Authority) -> None:
        """The name is announced in the handshake and must be in the certificate."""
        announced: list[str | None] = []
        server = authority.server("calls.example")
        server.sni_callback = lambda _socket, name, _context: announced.append(name)
        resolver, _ = directory(["127.0.0.1"])
        async with laboratory(saying(answer(MP3)), tls=server) as lab:
            source = downloader(resolver=resolver, tls=authority.trusted())
            assert await fetched(source, f"https://calls.example.:{lab.port}/a") == MP3
        assert announced == ["calls.example"]

    async def test_an_address_in_the_certificate_counts_too(self, authority: Authority) -> None:
        """A URL with an address is verified for that address."""
        async with laboratory(saying(answer(MP3)), tls=authority.server("127.0.0.1")) as lab:
            assert await fetched(downloader(tls=authority.trusted()), f"https://{lab.address}/") == MP3

    @pytest.mark.parametrize(
        ("name", "trusted"), [("other.example", True), ("127.0.0.1", True), ("calls.example", False)]
    )
    async def test_a_certificate_that_proves_nothing_is_refused(
        self, name: str, trusted: bool, authority: Authority
    ) -> None:
        """Another name, the address alone, or an unknown authority: no request is sent."""
        resolver, _ = directory(["127.0.0.1"])
        async with laboratory(saying(answer(MP3)), tls=authority.server(name)) as lab:
            source = downloader(resolver=resolver, tls=authority.trusted() if trusted else None)
            reason = await refusal(source, f"https://calls.example:{lab.port}/")
        assert reason == "the server's certificate could not be verified"
        assert lab.requests == []

    async def test_a_connection_is_not_shared_between_names(self, authority: Authority) -> None:
        """A redirect to another name at the same address and port is verified for that name."""
        resolver, _ = directory(["127.0.0.1"], ["127.0.0.1"])
        hop = answer(status="302 Found", location="https://other.example:{port}/", connection="keep-alive")

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(hop.replace(b"{port}", str(lab.port).encode()))
            await reader.read()

        async with laboratory(script, tls=authority.server("calls.example")) as lab:
            source = downloader(resolver=resolver, tls=authority.trusted())
            reason = await refusal(source, f"https://calls.example:{lab.port}/")
        assert reason == "the server's certificate could not be verified"
        assert len(lab.requests) == 1

    async def test_a_server_without_tls_is_refused(self) -> None:
        """https to a server that speaks plain text gets nowhere."""

        async def rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(rude, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert await refusal(downloader(), f"https://127.0.0.1:{port}/") == "no secure connection could be made"

    async def test_https_does_not_fall_back_to_http(self, authority: Authority, canary: Laboratory) -> None:
        """A redirect may lead from http to https, never the other way."""
        resolver, _ = directory(["127.0.0.1"], ["127.0.0.1"])
        down = saying(answer(status="302 Found", location=f"http://127.0.0.1:{canary.port}/"))
        async with laboratory(down, tls=authority.server("calls.example")) as secure:
            up = saying(answer(status="302 Found", location=f"https://calls.example:{secure.port}/"))
            async with laboratory(up) as plain:
                source = downloader(resolver=resolver, tls=authority.trusted())
                assert await refusal(source, plain.url) == "it redirects from https to http"
            assert len(secure.requests) == 1


class TestLimits:
    """Time and bytes are bounded."""

    async def test_a_declared_length_over_the_limit_is_refused_at_once(self) -> None:
        """Nothing of such a body is read."""
        script = falling_silent(answer(content_length="1000001") + MP3)
        assert await refusal_of(script) == "it is larger than 1000000 bytes"

    @pytest.mark.parametrize("chunked", [True, False])
    async def test_an_endless_body_is_cut_off(self, chunked: bool) -> None:
        """A body without a length is counted while it comes, and the connection closed."""
        framed = (lambda data: b"%x\r\n%s\r\n" % (len(data), data)) if chunked else bytes
        start = answer(content_length="", transfer_encoding="chunked" if chunked else "")
        async with laboratory(repeating(start + framed(MP3), framed(bytes(10_000)))) as lab:
            assert await refusal(downloader(), lab.url) == "it is larger than 1000000 bytes"
            await asyncio.wait_for(lab.ended.wait(), PATIENCE_SECONDS)

    @pytest.mark.parametrize("declared", [True, False])
    async def test_the_limit_is_exact(self, declared: bool) -> None:
        """A body of exactly the limit passes; one byte more does not."""
        length = {} if declared else {"content_length": ""}
        limits = DownloadLimits(max_bytes=len(MP3), total_seconds=60)
        async with laboratory(saying(answer(MP3, **length))) as lab:
            assert await fetched(downloader(limits=limits), lab.url) == MP3
        assert await refusal_of(saying(answer(MP3 + b"\0", **length)), limits) == f"it is larger than {len(MP3)} bytes"

    @pytest.mark.parametrize(
        ("script", "limits", "reason"),
        [
            pytest.param(
                falling_silent(),
                DownloadLimits(10**6, total_seconds=60, answer_seconds=0.1),
                "the server took longer than 0.1 seconds to answer",
                id="no answer",
            ),
            pytest.param(
                repeating(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", every=0.01),
                DownloadLimits(10**6, total_seconds=60, answer_seconds=0.2),
                "the server took longer than 0.2 seconds to answer",
                id="trickling headers",
            ),
            pytest.param(
                repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.001),
                DownloadLimits(10**6, total_seconds=60, answer_seconds=0.2),
                "the server took longer than 0.2 seconds to answer",
                id="endless interim answers",
            ),
            pytest.param(
                falling_silent(answer(content_length="1000") + MP3),
                DownloadLimits(10**6, total_seconds=60, stall_seconds=0.1),
                "the server stopped sending",
                id="silent body",
            ),
            pytest.param(
                repeating(answer(content_length="100000") + MP3, b"\0", every=0.01),
                DownloadLimits(10**6, total_seconds=0.3),
                "it took longer than 0.3 seconds",
                id="trickling body",
            ),
            pytest.param(
                falling_silent(),
                DownloadLimits(10**6, total_seconds=0.1),
                "it took longer than 0.1 seconds",
                id="no answer within the whole time",
            ),
        ],
    )
    async def test_slowness_has_an_end(self, script: Script, limits: DownloadLimits, reason: str) -> None:
        """Silence and trickling, in headers or body, are given up in time."""
        async with patience():
            assert await refusal_of(script, limits) == reason

    async def test_a_slow_name_server_counts_as_well(self) -> None:
        """The look-up is part of the answer's time."""

        async def resolver(host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

        source = downloader(resolver=resolver, limits=DownloadLimits(10**6, total_seconds=60, answer_seconds=0.1))
        assert await refusal(source, "http://slow.example/") == "the server took longer than 0.1 seconds to answer"

    async def test_redirects_share_one_time_limit(self) -> None:
        """Many slow hops together are too slow, though each is quick enough."""

        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.1)
            writer.write(answer(status="302 Found", location="/on"))

        limits = DownloadLimits(10**6, total_seconds=0.35, answer_seconds=600, max_redirects=50)
        assert await refusal_of(script, limits) == "it took longer than 0.35 seconds"

    @pytest.mark.parametrize(
        "script",
        [
            saying(answer(MP3, x_long="a" * 150_000)),
            repeating(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 1000 + b"\r\n"),
            repeating(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 1000),
        ],
        ids=["one long header", "endless headers", "endless header"],
    )
    async def test_headers_are_bounded(self, script: Script) -> None:
        """An answer whose headers do not end is given up after a hundred kilobytes."""
        assert await refusal_of(script) == "the connection broke off, or the answer was not valid HTTP"


class TestAnswers:
    """Only a whole, plain 200 with audio in it will do."""

    @pytest.mark.parametrize(
        "status", ["201 Created", "204 No Content", "206 Partial", "304 Not Modified", "404 Not Found", "500 Oops"]
    )
    async def test_other_statuses_are_refused(self, status: str) -> None:
        """The status is named, whatever the body."""
        body = b"" if status[:3] in {"204", "304"} else MP3
        assert await refusal_of(saying(answer(body, status))) == f"the server answered with status {status[:3]}"

    @pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip", "x-unknown"])
    async def test_compressed_bodies_are_refused(self, coding: str) -> None:
        """We asked for none; unpacking one could cost any amount of memory."""
        bomb = gzip.compress(bytes(10_000_000))
        assert await refusal_of(saying(answer(bomb, content_encoding=coding))) == "the server sent it compressed"

    async def test_the_identity_coding_is_no_compression(self) -> None:
        """A server may say that it did not compress."""
        async with laboratory(saying(answer(MP3, content_encoding="Identity"))) as lab:
            assert await fetched(downloader(), lab.url) == MP3

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            (answer(b""), "it is empty"),
            (answer(b"<!doctype html><p>Please log in"), "it is not MP3, WAV, Ogg, FLAC or M4A audio"),
            (answer(b"ID3"), "it is not MP3, WAV, Ogg, FLAC or M4A audio"),
            (answer(gzip.compress(MP3, mtime=0)), "it is not MP3, WAV, Ogg, FLAC or M4A audio"),
            (answer(MP3, content_length="1000"), "the connection broke off before the end"),
            (
                answer(content_length="", transfer_encoding="chunked") + b"5\r\nID3\x04\0\r\n",
                "the connection broke off before the end",
            ),
            (
                answer(content_length="", transfer_encoding="chunked") + b"nonsense\r\n",
                "the connection broke off before the end",
            ),
            (b"", "the connection broke off, or the answer was not valid HTTP"),
            (b"HTTP/1.1 200", "the connection broke off, or the answer was not valid HTTP"),
            (b"220 mail.example ESMTP\r\n\r\n", "the connection broke off, or the answer was not valid HTTP"),
            (b"\0\xff\xfe garbage \r\n\r\n", "the connection broke off, or the answer was not valid HTTP"),
            (answer(MP3, content_length="-1"), "the connection broke off, or the answer was not valid HTTP"),
            (answer(MP3, content_length="9" * 30), "the connection broke off, or the answer was not valid HTTP"),
            (answer(MP3, transfer_encoding="gzip"), "the connection broke off, or the answer was not valid HTTP"),
            (
                b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
                "the connection broke off, or the answer was not valid HTTP",
            ),
        ],
    )
    async def test_anything_else_is_refused(self, reply: bytes, reason: str) -> None:
        """Empty, foreign, cut off and nonsensical answers each have their reason."""
        assert await refusal_of(saying(reply)) == reason

    async def test_a_connection_reset_is_a_refusal(self) -> None:
        """A server that tears the connection down is a server that broke off."""

        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(content_length="100000") + MP3)
            await writer.drain()
            writer.transport.abort()

        assert await refusal_of(script) == "the connection broke off before the end"

    async def test_a_closed_port_is_a_refusal(self) -> None:
        """Nobody there is a reason of its own."""
        async with laboratory(saying()) as lab:
            gone = lab.url
        assert await refusal(downloader(), gone) == "the server could not be reached"

    async def test_damaged_tls_records_are_a_refusal(self, authority: Authority) -> None:
        """Bytes that are no TLS in the middle of an encrypted answer break it off."""

        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(content_length="100000") + MP3)
            await writer.drain()
            os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x10" + bytes(16))

        async with laboratory(script, tls=authority.server("127.0.0.1")) as lab:
            reason = await refusal(downloader(tls=authority.trusted()), f"https://{lab.address}/")
        assert reason == "the connection broke off before the end"

    async def test_a_cancelled_download_stays_cancelled(self) -> None:
        """Cancelling is no refusal, and ends the connection."""
        async with laboratory(falling_silent(answer(content_length="1000") + MP3)) as lab:
            task = asyncio.create_task(fetched(downloader(), lab.url))
            await lab.asked.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            await asyncio.wait_for(lab.ended.wait(), PATIENCE_SECONDS)


async def test_a_fifth_address_is_not_tried() -> None:
    """A name server's long answer does not make one request knock at any number of doors."""
    dead = [f"127.0.0.{last}" for last in range(11, 15)]
    allowed = [ip_network("127.0.0.0/8")]
    async with laboratory(saying(answer(MP3))) as lab:
        fourth, _ = directory([*dead[:3], "127.0.0.1"])
        fifth, _ = directory([*dead, "127.0.0.1"])
        url = f"http://many.example:{lab.port}/"

        assert await fetched(downloader(resolver=fourth, allowed=allowed), url) == MP3
        assert await refusal(downloader(resolver=fifth, allowed=allowed), url) == "the server could not be reached"


async def test_a_name_whose_first_address_is_silent_is_reached() -> None:
    """One address may take its share of the time and no more."""
    resolver, _ = directory(["127.0.0.9", "127.0.0.1"])
    limits = DownloadLimits(max_bytes=1 << 20, total_seconds=60, answer_seconds=2 * SLOWNESS)
    async with laboratory(saying(answer(MP3))) as lab:
        with contextlib.ExitStack() as stack:
            # A queue of connections that are not accepted is full after a few; later ones get no answer.
            silent = stack.enter_context(socket.create_server(("127.0.0.9", lab.port), backlog=0))
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())
            source = downloader(resolver=resolver, allowed=[ip_network("127.0.0.0/8")], limits=limits)
            assert await fetched(source, f"http://two.example:{lab.port}/") == MP3


@pytest.mark.parametrize("port", [1, 22, 79, 81, 442, 444, 1023])
async def test_well_known_ports_are_refused_up_to_the_last(port: int) -> None:
    """But for those of the web itself; the first of the others is tried."""
    assert await refusal(downloader(allowed=[]), f"http://127.0.0.1:{port}/") == "its port is not allowed"


async def test_the_first_port_of_the_others_is_tried() -> None:
    """Whether anybody is there or not."""
    reason = await refusal(downloader(allowed=[]), "http://127.0.0.1:1024/")

    assert reason == "its host does not have a public address"
