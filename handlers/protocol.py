"""HTTP/1.1 as the server speaks it: uvicorn's protocol, with four doors closed that it leaves open.

A head (request line and headers) has a limit, so that nobody can fill the memory before showing a token. Trailers are
dropped: they arrive after the body and must not pass for headers (RFC 9110, 6.5.1), least of all for Authorization. An
offer to upgrade is ignored and the request served as it stands (RFC 9110, 7.8); uvicorn would lose its body. Who sends
slowly on purpose is let go: a connection without a whole head, and a body that comes slower than a bad line would
bring it.

Most requests arrive in one piece and are answered in one: then no timer is set, and head and body leave together.
"""

import asyncio
import functools
import urllib.parse
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0

# A body has so long, and a second more for every so many bytes that have come.
BODY_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 4096

_LINGER_SECONDS = 1.0
_TOO_LARGE = b'{"success":false,"error":"Request headers are too large"}'
_TOO_SLOW = b'{"success":false,"error":"The request did not arrive in time"}'
_OFFERS = frozenset({b"upgrade", b"http2-settings"})
_TELLING = frozenset({b"connection", b"transfer-encoding"})


class HttpProtocol(HttpToolsProtocol):
    """Reads requests from one connection.

    The limits are a class's own, so that a server with others is a subclass away: see `reading_within`.
    """

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    body_bytes_per_second = BODY_BYTES_PER_SECOND

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._is_in_body = False
        self._is_offer = False
        self._head_bytes = 0
        self._is_refused = False
        self._body_bytes = 0
        self._parts = 0
        self._part_with_deadline = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what arrived; let go of who sends a head without end."""
        if self._is_refused:
            return
        self._idle_since = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        self._set_deadline()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._is_in_head = True
        self._body_bytes = 0
        self._parts += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless it is a trailer."""
        if self._is_in_head:
            name = name.lower()
            self.headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """End the head; a request that offers an upgrade is read again without the offer."""
        self._is_in_head, self._is_in_body = False, True
        self._parts += 1
        # CONNECT looks like an upgrade to the parser; it is a method like any other, and one that nothing here has.
        self._is_offer = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._is_offer:
            self._begin_request()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        if self._is_offer or self.cycle.response_complete:
            return
        # Handed on as it is: gathering it in a buffer would copy it twice.
        cycle = cast("Any", self.cycle)
        cycle.body = cycle.body + body if cycle.body else body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End the request."""
        self._is_in_body = False
        if not self._is_offer and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on to the request behind this one, or begin to be idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        # Set once and looked at when it is over, not with each request.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_when_idle(self.timeout_keep_alive)

    def _begin_request(self) -> None:
        """Fill the scope and start the application, or queue the request behind the one that is being answered."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope = cast("dict[str, Any]", self.scope)
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _decline(self, rest: bytes) -> None:
        if self.parser.get_method() == b"CONNECT":
            return
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in _without_offers(self.headers)]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    # Waiting.

    def _set_deadline(self) -> None:
        """Give the part that has begun and not ended its time, once."""
        if not (self._is_in_head or self._is_in_body):
            self._stop_waiting()
        elif self._part_with_deadline != self._parts:
            self._part_with_deadline = self._parts
            self._wait(self.head_seconds if self._is_in_head else self.body_seconds)

    def _close_when_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._on_idle)

    def _on_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._close_when_idle(left)
        else:
            self.timeout_keep_alive_handler()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._on_time)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_time(self) -> None:
        self._deadline = None
        if self.transport.is_closing() or self._is_refused:
            return
        seconds = self._seconds_more()
        if seconds:
            self._wait(seconds)
        elif self._is_in_head or not (self._answering and self.cycle.more_body):
            self._let_go(has_begun=self._is_in_head)
        else:
            self._let_go(has_begun=not self.cycle.response_started)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _seconds_more(self) -> float:
        """Return how much longer to wait: while we are busy ourselves, and for a body that keeps coming."""
        if self._is_in_head:
            return self.head_seconds if self._answering else 0
        if self.flow.read_paused or self.pipeline:
            return self.body_seconds
        earned, self._body_bytes = self._body_bytes / self.body_bytes_per_second, 0
        return earned if earned >= 1 else 0

    def _let_go(self, *, has_begun: bool) -> None:
        if not has_begun:
            self.transport.close()
            return
        self.logger.warning("A request that did not arrive in time was refused.")
        self._answer_and_close(408, _TOO_SLOW)
        if self._answering:
            # Whoever reads the body hears that there will be no more of it, and has nobody left to answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse_head(self) -> None:
        self.logger.warning("Request headers without end refused.")
        self._answer_and_close(431, _TOO_LARGE)

    def _answer_and_close(self, status: int, body: bytes) -> None:
        headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + headers + body)
        # Closed while data is still arriving, the connection would be reset and the answer lost.
        self._is_refused = True
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


@functools.lru_cache(maxsize=256)
def _is_plain(name: bytes) -> bool:
    """Tell whether a header's name is written as usual, and the header says nothing about the connection."""
    return name.islower() and not HEADER_RE.search(name) and name not in _TELLING


class _Cycle(RequestResponseCycle):
    """One request and its answer; an answer that is whole leaves in one piece."""

    _start: Any = None
    _is_received = False

    async def receive(self) -> Any:
        """Hand over a body that is there, and wait for everything else as uvicorn does."""
        is_there = not (self.more_body or self._is_received or self.waiting_for_100_continue)
        if not is_there or self.disconnected or self.response_complete or self.flow.read_paused:
            return await super().receive()
        self._is_received = True
        self.message_event.clear()
        body, self.body = self.body, bytearray()
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def send(self, message: Any) -> None:
        """Send the head of an answer with the first of its body, and everything else as uvicorn does."""
        if self.response_started:
            await super().send(message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif self._start is None or not self._sent_whole(self._start, message):
            await super().send(self._start or message)
            await super().send(message)

    def _sent_whole(self, start: Any, message: Any) -> bool:
        """Send the answer if it is one piece and nothing about it is out of the ordinary."""
        body: bytes = message.get("body", b"")
        is_whole = not message.get("more_body", False) and message["type"] == "http.response.body"
        if not is_whole or self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        pieces, length = [STATUS_LINE[start["status"]]], None
        for name, value in self.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        for name, value in start["headers"]:
            if not (_is_plain(name) and value.decode("latin-1").isprintable()):
                return False
            if name == b"content-length":
                length = int(value)
            pieces += (name, b": ", value, b"\r\n")
        if length != len(body):
            return False
        pieces += (b"\r\n", body) if self.keep_alive else (b"connection: close\r\n\r\n", body)
        self._finish(b"".join(pieces))
        return True

    def _finish(self, answer: bytes) -> None:
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(answer)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def reading_within(head_seconds: float, body_seconds: float) -> type[HttpProtocol]:
    """Return the protocol with other limits; see the constants above."""
    return type("HttpProtocol", (HttpProtocol,), {"head_seconds": head_seconds, "body_seconds": body_seconds})


def _without_offers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name not in _OFFERS and name != b"connection"]
    options = [option.strip() for name, value in headers if name == b"connection" for option in value.split(b",")]
    return [*kept, *((b"connection", option) for option in options if option.lower() not in _OFFERS)]
