"""One HTTP request to a vendor and its answer: sent once, bounded in time and size, every failure named.

What a failure means depends on how far the request got. Until the first byte of its body was handed to the network, the
vendor cannot have acted on it (`ProviderUnavailable`). From then on it may have been processed, whatever we see
(`OutcomeUnknown`) — unless it only asked a question, for a question that got no answer changed nothing.

An answer counts from its status line on: a body that breaks off leaves the status standing. No error made here quotes
httpx, for its messages can hold header values; vendors' words are quoted through `quotable` only.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx

from domain.documents import dump, load
from domain.errors import InvalidRequest, OutcomeUnknown, ProviderError, ProviderRejected, ProviderUnavailable

# The caller of a text provider waits 4 seconds at most; ending half a second earlier lets us say what we know.
SEND_TIMEOUT = 3.5

_ANSWER_LIMIT = 256 * 1024
_QUOTE_LIMIT = 200
_WINDOW = 12

# 408, 425 and 429 say by definition that the request was not acted on (RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4).
_NOT_PROCESSED = frozenset({408, 425, 429})
# A permanent or temporary redirect points elsewhere instead of acting; we never follow one with credentials in hand.
_REDIRECTS = frozenset({301, 302, 307, 308})

_HEADER_VALUE = re.compile(r"[\x20-\x7e]*\Z")
# A word or a short number, so that nothing secret passes for a code.
_CODE = re.compile(r"(?:[A-Za-z_.-]{1,64}|[A-Za-z]{0,3}-?[0-9]{1,6})\Z")
# One clock, ours, runs over everything.
_NO_TIMEOUTS = {"connect": None, "read": None, "write": None, "pool": None}

_LONG_NUMBER = re.compile(r"\+?\d(?:[\s().-]{0,2}\d){6,}")


@dataclass(slots=True)
class VendorAnswer:
    """What a vendor answered; `body` is cut at the limit, and `is_whole` tells whether all of it came."""

    method: str
    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def document(self) -> dict[str, Any]:
        """Return the JSON object in the body, or an empty one when there is no such thing."""
        try:
            document = load(self.body) if self.is_whole else None
        except InvalidRequest:
            document = None
        return document if isinstance(document, dict) else {}

    def text(self) -> str:
        """Return the beginning of a plain-text body; markup says nothing worth quoting."""
        text = bytes(self.body[:1000]).decode("utf-8", "replace").strip()
        return "" if text[:1] in {"<", "{", "["} else text


async def exchange(
    http: httpx.AsyncClient,
    provider: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout: float,
    form: Mapping[str, str] | None = None,
    document: object = None,
) -> VendorAnswer:
    """Send one request, once, and return the answer whatever its status; `timeout` is in seconds, over everything.

    Args:
        http: the client whose connections are used; its cookies, time-outs and redirects are not.
        provider: the vendor's name, for errors.
        method: the HTTP method; `GET` marks a question.
        url: the whole address.
        headers: what identifies us to the vendor.
        timeout: seconds from now until the answer is complete.
        form: fields to send as `application/x-www-form-urlencoded`.
        document: JSON to send, when it is not None.

    Raises:
        ProviderRejected: when our own request cannot be written down as HTTP.
        ProviderUnavailable: when it certainly was not processed.
        OutcomeUnknown: when it left us and no answer came.
    """
    answer, progress = VendorAnswer(method), _Progress()
    try:
        content, kind = _content(provider, form, document)
        extensions = {"timeout": _NO_TIMEOUTS, "trace": progress}
        request = _request(provider, method, url, {**kind, **headers}, content, extensions)
        async with asyncio.timeout(timeout):
            response = await http.send(request, stream=True, follow_redirects=False)
            try:
                answer.status, answer.headers = response.status_code, response.headers
                await _read_body(response, answer)
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if not answer.status:
            raise _lost(provider, method, error, timeout, is_out=progress.is_out) from None
    return answer


def refusal(provider: str, answer: VendorAnswer, *, code: object = None, said: str | None = None) -> ProviderError:
    """Return the error that an answer other than 2xx means.

    No vendor here promises that a 503 was not processed (Twilio's page for 20503 only says to try again, and its page
    for 20500 warns that a text may then go out twice), so every 5xx to a write leaves the outcome unknown.

    Args:
        provider: the vendor's name.
        answer: the answer.
        code: the vendor's own error code, of any type.
        said: the vendor's words, already through `quotable`.
    """
    kind = _kind_of(answer)
    reason = f"answered {answer.status}" + (f": {said}" if said else "")
    return kind(provider, reason, status=answer.status, vendor_code=code_text(code))


def garbled(provider: str, answer: VendorAnswer, missing: str) -> ProviderError:
    """Return the error that a 2xx answer without `missing` means; its body is never quoted."""
    kind = _doubt(answer.method)
    return kind(provider, f"answered {answer.status} without {missing}", status=answer.status)


def code_text(code: object) -> str | None:
    """Return a vendor's error code as short text, or None when it is nothing of the kind."""
    text = str(code) if isinstance(code, str | int) and not isinstance(code, bool) else ""
    return text if _CODE.match(text) else None


def quotable(words: object, private: Iterable[str]) -> str | None:
    """Return a vendor's words fit for a log: one line, at most 200 characters, long numbers hidden.

    None when they are no words, or repeat a piece of anything in `private`: vendors like to quote the number, the text
    or the account they refuse.
    """
    if not isinstance(words, str):
        return None
    line = _one_line(words[:2000])
    if not line or any(_repeats(line.casefold(), _one_line(secret).casefold()) for secret in private):
        return None
    return _LONG_NUMBER.sub("[number]", line)[:_QUOTE_LIMIT]


@dataclass(slots=True)
class _Progress:
    """Hears httpcore say how far a request got; `is_out` from the moment its body begins to leave."""

    is_out: bool = False
    stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        # A proxy's CONNECT passes here too, and carries nothing of ours to the vendor.
        if event.endswith("send_request_body.started") and info["request"].method != b"CONNECT":
            self.is_out = True
        elif event.endswith("connect_tcp.complete"):
            self.stream = info["return_value"]
        elif event.endswith("start_tls.failed") and self.stream:
            # httpcore forgets to close a socket when its TLS handshake is cancelled.
            await self.stream.aclose()


def _request(
    provider: str,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    extensions: dict[str, Any],
) -> httpx.Request:
    # Built by hand, not by the client: the client would add the cookies that one organization's answer left behind.
    if not all(_HEADER_VALUE.match(value) for value in headers.values()):
        raise ProviderRejected(provider, "a credential holds characters that no header can carry")
    ours = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tether-relay"}
    return httpx.Request(method, url, headers={**ours, **headers}, content=content, extensions=extensions)


def _content(provider: str, form: Mapping[str, str] | None, document: object) -> tuple[bytes, dict[str, str]]:
    try:
        if form is not None:
            return urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
        if document is not None:
            return dump(document), {"Content-Type": "application/json"}
    except UnicodeEncodeError:
        raise ProviderRejected(provider, "the request holds text that is not valid Unicode") from None
    return b"", {}


async def _read_body(response: httpx.Response, answer: VendorAnswer) -> None:
    async for chunk in response.aiter_bytes():
        answer.body += chunk
        if len(answer.body) > _ANSWER_LIMIT:
            del answer.body[_ANSWER_LIMIT:]
            return
    answer.is_whole = True


def _lost(provider: str, method: str, error: Exception, timeout: float, *, is_out: bool) -> ProviderError:
    is_late = isinstance(error, TimeoutError)
    if is_out:
        what = f"no answer within {timeout:.2g} s" if is_late else "the connection broke"
        return _doubt(method)(provider, f"{what}, after the request left")
    what = f"no connection within {timeout:.2g} s" if is_late else "cannot be reached"
    return ProviderUnavailable(provider, f"{what} ({type(error).__name__})")


def _doubt(method: str) -> type[ProviderError]:
    return ProviderUnavailable if method == "GET" else OutcomeUnknown


def _kind_of(answer: VendorAnswer) -> type[ProviderError]:
    if answer.status in _NOT_PROCESSED:
        return ProviderUnavailable
    if 400 <= answer.status < 500 or answer.status in _REDIRECTS:
        return ProviderRejected
    return _doubt(answer.method)


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _repeats(line: str, secret: str) -> bool:
    size = min(len(secret), _WINDOW)
    return size > 0 and any(secret[start : start + size] in line for start in range(len(secret) - size + 1))
