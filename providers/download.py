"""Fetching a recording from a URL that somebody else chose.

Rules of this file:

1. Nothing is ever sent to an address that was not checked. A name is resolved once per request, every address it
   resolves to must be allowed, and the connection goes to one of exactly those addresses, so a second answer of the
   name server cannot matter. The name itself is used only in the Host header and to verify the certificate.
2. A redirect is a new URL: it goes through everything again, on a new connection, and never from https to http.
3. An address that leads back to this host is refused like a private one: it may be public, and what listens there may
   be meant for this host alone. The addresses of the names this host is known by count as its own.
4. Time, bytes, redirects and header size are bounded. The body is handed on as it arrives and never held.
5. Each refusal has its own reason, short enough to show to whoever sent the URL. None names an address.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx

from domain.addresses import Address, Network, is_public, without_nat64
from domain.errors import RecordingRejected
from domain.recordings import HEAD_BYTES, audio_type
from providers.own_addresses import leads_here

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FIRST_UNPRIVILEGED_PORT = 1024
_MAX_ADDRESSES = 4

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\Z")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\Z")

# A connection is verified for one name; it must never be used again for another that lives at the same address.
_NO_REUSE = httpx.Limits(max_connections=1, max_keepalive_connections=0)

_HEADERS = {
    "Accept": "audio/*, application/octet-stream;q=0.9, */*;q=0.1",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "tether-relay",
}


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What one download may cost.

    `total_seconds` covers everything, redirects and body included; `answer_seconds` covers one request until its
    headers are complete, name look-up included; `stall_seconds` is the longest silence within a body.
    """

    max_bytes: int
    total_seconds: float
    answer_seconds: float = 10
    stall_seconds: float = 10
    max_redirects: int = 5


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host`, as the system's resolver gives them.

    Raises:
        OSError: when there are none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Downloader:
    """Fetches recordings from public http and https URLs of other hosts.

    `allowed_networks` are reachable although they are not public, or are this host's. `own_names` are names and
    addresses this host is known by: behind a NAT no interface has the address they lead to. Ports below 1024 other than
    80 and 443 are refused: the well-known services behind them (mail, shells, directories) have no business with us,
    while recordings are commonly served from 8080 or 8443.
    """

    def __init__(
        self,
        limits: DownloadLimits,
        *,
        allowed_networks: Sequence[Network] = (),
        own_names: Sequence[str] = (),
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._allowed_networks = tuple(allowed_networks)
        self._own_names = tuple(own_names)
        self._resolver = resolver
        self._tls = tls or httpx.create_ssl_context()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator["Download"]:
        """Ask for the recording at `url` and, once it is known to be audio, hand over its bytes as they arrive.

        Raises:
            RecordingRejected: here or while the chunks are read; the message may be shown to whoever sent the URL.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.total_seconds
        async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=_NO_REUSE) as transport:
            response = await self._follow(transport, _parsed(url), deadline)
            try:
                yield await _begin(response, self._limits, deadline)
            finally:
                await response.aclose()

    async def _follow(self, transport: httpx.AsyncHTTPTransport, url: httpx.URL, deadline: float) -> httpx.Response:
        for _ in range(self._limits.max_redirects + 1):
            response = await self._answer(transport, url, deadline)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = _redirected(url, response.headers.get("location"))
        raise _refused(f"it redirects more than {self._limits.max_redirects} times")

    async def _answer(self, transport: httpx.AsyncHTTPTransport, url: httpx.URL, deadline: float) -> httpx.Response:
        seconds = self._limits.answer_seconds
        late = f"the server took longer than {seconds:g} seconds to answer"
        until = asyncio.get_running_loop().time() + seconds
        until, late = min((until, late), (deadline, _too_long(self._limits)))
        with _translated(late, "the connection broke off, or the answer was not valid HTTP"):
            async with asyncio.timeout_at(until):
                return await self._ask(transport, url)

    async def _ask(self, transport: httpx.AsyncHTTPTransport, url: httpx.URL) -> httpx.Response:
        addresses = await self._checked_addresses(url)
        for address in addresses[:-1]:
            try:
                return await transport.handle_async_request(self._request(url, address, len(addresses)))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await transport.handle_async_request(self._request(url, addresses[-1], len(addresses)))

    def _request(self, url: httpx.URL, address: Address, attempts: int) -> httpx.Request:
        timeouts = httpx.Timeout(self._limits.stall_seconds, connect=self._limits.answer_seconds / attempts)
        extensions = {"timeout": timeouts.as_dict(), "sni_hostname": url.raw_host.decode("ascii").removesuffix(".")}
        headers = {"Host": url.netloc.decode("ascii"), **_HEADERS}
        return httpx.Request("GET", url.copy_with(host=str(address)), headers=headers, extensions=extensions)

    async def _checked_addresses(self, url: httpx.URL) -> list[Address]:
        """Return the addresses to connect to, all of them allowed; never empty."""
        host = _host(url)
        addresses = [host] if not isinstance(host, str) else await self._resolved(host, _port(url))
        unlisted = {without_nat64(address) for address in addresses if not self._is_listed(address)}
        if not all(is_public(address) for address in unlisted):
            raise _refused("its host does not have a public address")
        if unlisted and await self._is_own(unlisted):
            raise _refused("its host is this server")
        return addresses[:_MAX_ADDRESSES]

    async def _resolved(self, host: str, port: int) -> list[Address]:
        try:
            addresses = [ip_address(text) for text in await self._resolver(host, port)]
        except (OSError, ValueError) as error:
            raise _refused("its host name could not be resolved") from error
        if not addresses:
            raise _refused("its host name could not be resolved")
        return addresses

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed_networks)

    async def _is_own(self, addresses: set[Address]) -> bool:
        """Tell whether one of the addresses leads back to this host."""
        if any(leads_here(address) for address in addresses):
            return True
        known = [await self._addresses_of_own(name) for name in self._own_names]
        return not addresses.isdisjoint(address for found in known for address in found)

    async def _addresses_of_own(self, name: str) -> list[Address]:
        try:
            return [without_nat64(ip_address(text)) for text in await self._resolver(name, _DEFAULT_PORTS["https"])]
        except (OSError, ValueError):  # a name that leads nowhere does not lead here
            return []


class Download:
    """A recording on its way; `content_type` is what its first bytes are, whatever the server called it."""

    def __init__(self, content_type: str, head: bytes, body: "_Body") -> None:
        self.content_type = content_type
        self._head = head
        self._body = body

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the recording's bytes, once, in chunks of about 64 KiB at most.

        Raises:
            RecordingRejected: when it turns out too long, too slow or cut off.
        """
        yield self._head
        while chunk := await self._body.read():
            yield chunk


class _Body:
    """The body of an answer, held to its limits while it is read."""

    def __init__(self, response: httpx.Response, limits: DownloadLimits, deadline: float) -> None:
        self._stream = response.aiter_raw()
        self._limits = limits
        self._deadline = deadline
        self._received = 0

    async def read(self) -> bytes:
        """Return the next bytes as they come, or none at the end."""
        with _translated(_too_long(self._limits), "the connection broke off before the end"):
            async with asyncio.timeout_at(self._deadline):
                chunk = await anext(self._stream, b"")
        self._received += len(chunk)
        _check_length(self._received, self._limits)
        return chunk


async def _begin(response: httpx.Response, limits: DownloadLimits, deadline: float) -> Download:
    if response.status_code != httpx.codes.OK:
        raise _refused(f"the server answered with status {response.status_code}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise _refused("the server sent it compressed")
    length = response.headers.get("content-length", "")
    _check_length(int(length) if length.isdecimal() else 0, limits)
    body = _Body(response, limits, deadline)
    head = await body.read()
    while len(head) < HEAD_BYTES and (chunk := await body.read()):
        head += chunk
    return Download(_audio_type(head), head, body)


def _audio_type(head: bytes) -> str:
    if not head:
        raise _refused("it is empty")
    content_type = audio_type(head)
    if content_type is None:
        raise _refused("it is not MP3, WAV, Ogg, FLAC or M4A audio")
    return content_type


def _check_length(length: int, limits: DownloadLimits) -> None:
    if length > limits.max_bytes:
        raise _refused(f"it is larger than {limits.max_bytes} bytes")


def _too_long(limits: DownloadLimits) -> str:
    return f"it took longer than {limits.total_seconds:g} seconds"


# URLs.


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused("it is not a valid URL") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise _refused("only http and https URLs are accepted")
    if url.userinfo:
        raise _refused("its URL contains credentials")
    _host(url)
    if not _is_port_allowed(_port(url)):
        raise _refused("its port is not allowed")
    return url


def _redirected(url: httpx.URL, location: str | None) -> httpx.URL:
    if not location:
        raise _refused("it redirects to nowhere")
    try:
        target = _parsed(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused("it redirects to an invalid URL") from error
    if url.scheme == "https" and target.scheme == "http":
        raise _refused("it redirects from https to http")
    return target


def _host(url: httpx.URL) -> Address | str:
    """Return the host as an address if it is written as one, else as a name for the resolver."""
    host = url.raw_host.decode("ascii").removesuffix(".")
    if "%" in host:
        raise _refused("its host name is not valid")
    if ":" in host:
        return IPv6Address(host)
    if _ENDS_IN_NUMBER.match(host):
        return _dotted_quad(host)
    if not _HOST_NAME.match(host):
        raise _refused("its host name is not valid")
    return host


def _dotted_quad(host: str) -> IPv4Address:
    # No top-level domain is a number, so whatever ends in one is an address; system resolvers also read octal,
    # hexadecimal and shortened spellings, which serve no purpose here but to hide an address.
    try:
        return IPv4Address(host)
    except ValueError as error:
        raise _refused("its address is not written as four decimal numbers") from error


def _port(url: httpx.URL) -> int:
    return _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _is_port_allowed(port: int) -> bool:
    return port in _DEFAULT_PORTS.values() or _FIRST_UNPRIVILEGED_PORT <= port <= 65535


# Errors.


def _refused(reason: str) -> RecordingRejected:
    return RecordingRejected(f"Recording could not be downloaded: {reason}")


@contextmanager
def _translated(late: str, broken: str) -> Iterator[None]:
    """Turn whatever the network does into a refusal; `late` and `broken` are the reasons for the general cases."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _refused(_connect_reason(error)) from error
    except httpx.ReadTimeout as error:
        raise _refused("the server stopped sending") from error
    except TimeoutError as error:
        raise _refused(late) from error
    except (httpx.HTTPError, OSError) as error:
        raise _refused(broken) from error


def _connect_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the server's certificate could not be verified"
        if isinstance(cause, ssl.SSLError):
            return "no secure connection could be made"
        cause = cause.__cause__ or cause.__context__
    return "the server could not be reached"
