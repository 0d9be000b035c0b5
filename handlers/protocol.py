"""HTTP/1.1 as the server speaks it: uvicorn's protocol, with the doors closed that it leaves open.

A head (request line and headers) has a limit, so that nobody can fill the memory before showing a token, and so has the
number of its headers, because every layer looks through them. Trailers are dropped: they arrive after the body and must
not pass for headers (RFC 9110, 6.5.1), least of all for Authorization. An offer to upgrade is ignored and the request
served as it stands (RFC 9110, 7.8); uvicorn would lose its body. Who sends slowly on purpose is let go: a connection
without a whole head, and a body that comes slower than a bad line would bring it. So is a client that does not take its
answer (`handlers/taking.py`). Requests that arrive together are read one at a time: what comes behind one that is being
answered stays unread, and then waits with what else costs much to parse (`handlers/reading_turns.py`). A body in very
many very small chunks is refused. Connections are counted, and one too many is refused at once
(`handlers/connections.py`).

Most requests arrive in one piece: then no timer is set. What is imported from uvicorn's modules is private to it;
`tests/handlers/test_protocol.py` says which version was read.
"""

import asyncio
import urllib.parse
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from domain.repetition import Repetition
from handlers.connections import Connections
from handlers.reading_turns import ReadingTurns
from handlers.taking import Taking

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128

# A body has its seconds, and one more for every so many bytes that have come; at most as long again at a time.
BODY_BYTES_PER_SECOND = 4096

# A chunk costs half a microsecond however small it is; a body may have so many, and one more for every so many bytes.
MAX_CHUNKS = 8192
BYTES_PER_FURTHER_CHUNK = 64

# As much is parsed in one go, so that what is to be refused is refused soon; and as much of what may cost a call every
# few bytes, which heads and small chunks do.
_PIECE_BYTES = 32 * 1024
_COSTLY_BYTES = 2 * 1024
_END = b"\r\n\r\n"

_LINGER_SECONDS = 1.0
_TOO_LARGE = b'{"success":false,"error":"Request headers are too large"}'
_TOO_SLOW = b'{"success":false,"error":"The request did not arrive in time"}'
_TOO_MANY_CHUNKS = b'{"success":false,"error":"The request body arrives in too many small chunks"}'
_FULL = b'{"success":false,"error":"Temporarily unavailable, please try again"}'
_OFFERS = frozenset({b"upgrade", b"http2-settings"})


class _TooManyHeaders(Exception):
    """Raised within the parser's call, and seen as the context of the parser's error."""


class HttpProtocol(HttpToolsProtocol):
    """Reads requests from one connection.

    It has no limits of its own, so only a subclass that `limited` makes can serve.
    """

    head_seconds: float
    body_seconds: float
    body_bytes_per_second = BODY_BYTES_PER_SECOND
    answer_seconds: float
    counted: Connections | None = None
    turns = ReadingTurns()
    repetition = Repetition()
    flow: "_Flow"
    taking: Taking

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._is_in_body = False
        self._is_offer = False
        self._head_bytes = 0
        self._is_admitted = False
        self._is_refused = False
        self._length: int | None = -1
        self._body_bytes = 0
        self._timed_bytes = 0
        self._chunks = 0
        self._parts = 0
        self._part_with_deadline = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        # What waits to be parsed, for its turn or an answer to the request before it, and up to where it was read.
        self._arrived = b""
        self._read_to = 0
        self._has_turn = False
        self._tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, or refuse a connection that is one too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.taking = Taking(transport, self.loop, self.answer_seconds, self._on_untaken)
        if self.counted is not None:
            self._is_admitted = self.counted.admit(self._peer)
            if not self._is_admitted:
                self._refuse_connection()
                return
        self._wait(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._is_admitted and self.counted is not None:
            self.counted.release(self._peer)
        self._stop_waiting()
        self.taking.end()
        self._arrived = b""
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Give a client that will say nothing more its time to take what it was sent."""
        self.taking.watch()

    def data_received(self, data: bytes) -> None:
        """Read what arrived, up to the end of the request that begins with it."""
        if self._is_refused:
            return
        if self._arrived:
            self._hold(self._arrived[self._read_to :] + data, 0)
            return
        if self._is_alone(data):
            self._head_bytes = 0
            left = data[self._feed(data) :]
            if self._is_in_head or self._is_in_body:
                self._head_bytes = len(data) if self._is_in_head else 0
                self._tail = data[1 - len(_END) :]
            if not left:
                self._set_deadline()
                return
            data = left
        if self._is_in_body and not self._is_in_decent_body:
            self._hold(data, 0)
            self._take_turn()
        else:
            self._read(data, 0)

    def _is_alone(self, data: bytes) -> bool:
        """Tell whether a request begins here and no other head ends in `data`, as with most: it is read in one go."""
        if self._is_in_head or self._is_in_body or len(data) > 2 * _COSTLY_BYTES:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        end = data.find(_END)
        return end >= 0 and data.find(_END, end + len(_END)) < 0

    def pause_writing(self) -> None:
        """Have the application wait, and the client take what it was sent."""
        super().pause_writing()
        self.taking.watch()

    def resume_writing(self) -> None:
        """Go on; the client took most of it."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.taking.stop()

    # Reading.

    def _read(self, data: bytes, start: int) -> None:
        """Read `data` from `start` on, message by message.

        What is behind an unanswered request waits for the answer, and what is behind so many costly bytes for a turn.
        """
        size, costly = len(data), 0
        while start < size and not self._is_refused:
            if self._answering and not self._is_in_body:
                self._hold(data, start)
                break
            if costly >= _COSTLY_BYTES:
                self._hold(data, start)
                self._take_turn()
                break
            is_costly = not self._is_in_decent_body
            end = self._cut(data, start, start + (_COSTLY_BYTES if is_costly else _PIECE_BYTES))
            piece = data if end - start == size else data[start:end]
            if not self._is_in_body and self._head_bytes + len(piece) > MAX_HEAD_BYTES:
                self._refuse_head()
                break
            start += self._feed(piece)
            costly += len(piece) if is_costly else 0
            self._head_bytes = self._head_bytes + len(piece) if self._is_in_head else 0
        if start >= size or self._is_refused:
            self._let_in()
        if not self._is_refused:
            self._set_deadline()

    @property
    def _is_in_decent_body(self) -> bool:
        """Whether what comes next is a body of a known length, or one whose chunks were not small up to now."""
        if not self._is_in_body:
            return False
        if self._length == -1:
            self._length = _length(self.headers)
        return self._length is not None or self._chunks * BYTES_PER_FURTHER_CHUNK < self._body_bytes

    def _hold(self, data: bytes, start: int) -> None:
        """Let nothing more in until `data` is read from `start` on."""
        self._arrived, self._read_to = data, start
        self.flow.is_held = True
        self.flow.pause_reading()

    def _let_in(self) -> None:
        """Let more in, unless the application has enough to read."""
        self._arrived = b""
        if self.flow.is_held:
            self.flow.is_held = False
            if not (self._is_in_body and self._answering and len(self.cycle.body) > HIGH_WATER_LIMIT):
                self.flow.resume_reading()

    def _take_turn(self) -> None:
        if not self._has_turn:
            self._has_turn = True
            self.turns.add(self._on_turn, self.loop)

    def _on_turn(self) -> None:
        self._has_turn = False
        if self._arrived and not self.transport.is_closing():
            self._read(self._arrived, self._read_to)

    def _cut(self, data: bytes, start: int, stop: int) -> int:
        """Return up to where `data`, at most to `stop`, holds no complete head behind the message that is being read.

        Heads and chunked bodies end with an empty line, which may have begun in the data before this.
        """
        if self._is_in_body and self._length is not None:
            return min(start + self._length - self._body_bytes, len(data))
        tail, self._tail = self._tail, b""
        if tail:
            seam = (tail + data[start : start + len(_END) - 1]).find(_END)
            if seam >= 0:
                return start + seam + len(_END) - len(tail)
        end = min(len(data), stop)
        found = data.find(_END, start, end)
        if found < 0:
            self._tail = (tail + data[max(start, end - len(_END) + 1) : end])[1 - len(_END) :]
            return end
        return found + len(_END)

    def _feed(self, piece: bytes) -> int:
        """Parse a piece; return how much of it was read."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as offer:
            self._decline()
            return int(offer.args[0])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooManyHeaders):
                self._refuse_head()
                return len(piece)
            self._warn("Invalid HTTP request received.")
            self._is_refused = True
            self.send_400_response("Invalid HTTP request received.")
            self.taking.watch()
        return len(piece)

    def _decline(self) -> None:
        """Read the head again without its offer to upgrade; what comes behind it is read as usual."""
        if self.parser.get_method() == b"CONNECT":
            return
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in _without_offers(self.headers)]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._is_in_head = True
        self._idle_since = None
        self._length = -1
        self._body_bytes = self._timed_bytes = self._chunks = 0
        self._parts += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless it is a trailer."""
        if self._is_in_head:
            name = name.lower()
            if len(self.headers) >= MAX_HEADERS:
                raise _TooManyHeaders  # which ends the parsing at once
            self.headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        else:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                self._insist_on_decent_chunks()

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
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._insist_on_decent_chunks()
        if self._is_offer or self._is_refused or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End the request."""
        self._is_in_body = False
        if not self._is_offer and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on to what arrived behind this request, or begin to be idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.taking.watch()
            return
        if self._arrived:
            self._take_turn()
        else:
            self.flow.resume_reading()
        if self._is_in_head or self._answering:
            return
        # Set once and looked at when it is over, not with each request.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_when_idle(self.timeout_keep_alive)

    def _begin_request(self) -> None:
        """Fill the scope and start the application."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope = cast("dict[str, Any]", self.scope)
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        self.cycle = RequestResponseCycle(
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
        task = self.loop.create_task(self.cycle.run_asgi(self.app))
        task.add_done_callback(self._on_answered)
        self.tasks.add(task)

    def _on_answered(self, task: "asyncio.Task[None]") -> None:
        """Give the client its time to take what an application left behind that could not finish its answer."""
        self.tasks.discard(task)
        if self.transport.is_closing():
            self.taking.watch()

    def _insist_on_decent_chunks(self) -> None:
        if self._chunks <= MAX_CHUNKS + self._body_bytes // BYTES_PER_FURTHER_CHUNK or self._is_refused:
            return
        self._warn("A request body in too many small chunks was refused.")
        self._is_refused = True
        if not self.cycle.response_started:
            self._answer_and_close(400, _TOO_MANY_CHUNKS)
        else:
            self.transport.close()
        self._interrupt()

    # Waiting.

    def _set_deadline(self) -> None:
        """Give the part that has begun and not ended its time, once."""
        if not (self._is_in_head or self._is_in_body):
            # Before a head begins the time for it runs on, whatever blank lines come.
            if self._parts:
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
        if self.flow.read_paused:
            return self.body_seconds
        earned = (self._body_bytes - self._timed_bytes) / self.body_bytes_per_second
        self._timed_bytes = self._body_bytes
        return min(earned, self.body_seconds) if earned >= 1 else 0

    def _let_go(self, *, has_begun: bool) -> None:
        if not has_begun:
            self._close()
            return
        self._warn("A request that did not arrive in time was refused.")
        self._answer_and_close(408, _TOO_SLOW)
        self._interrupt()

    def _interrupt(self) -> None:
        """Tell the application that there will be no more of a body, and nobody left to answer."""
        if self._answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse_head(self) -> None:
        self._warn("Request headers without end refused.")
        self._answer_and_close(431, _TOO_LARGE)

    def _answer_and_close(self, status: int, body: bytes) -> None:
        headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + headers + body)
        # Closed while data is still arriving, the connection would be reset and the answer lost.
        self._is_refused = True
        self.loop.call_later(_LINGER_SECONDS, self._close)

    def _refuse_connection(self) -> None:
        self._is_refused = True
        headers = b"content-type: application/json\r\nretry-after: 5\r\nconnection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(_FULL)
        self.transport.write(STATUS_LINE[503] + headers + length + _FULL)
        self._close()

    def _warn(self, sentence: str) -> None:
        if times := self.repetition.count(sentence):
            self.logger.warning("%s Since the last such line: %d.", sentence, times)

    @property
    def _peer(self) -> str | None:
        return self.client[0] if self.client else None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        if not self.transport.is_closing():
            self._close()

    def _close(self) -> None:
        """Close the connection once the client has taken everything, or when its time is over."""
        if not self.taking.is_over:
            self.transport.close()
            self.taking.watch()

    def _on_untaken(self) -> None:
        if self.flow.write_paused or self.transport.is_closing():
            self._warn("An answer that was not taken in time was given up.")
            self.transport.abort()


class _Flow(FlowControl):
    """Reads nothing as long as what was read waits to be parsed, whatever the application asks for."""

    is_held = False

    def resume_reading(self) -> None:
        """Read on, unless held."""
        if not self.is_held:
            super().resume_reading()


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return how long a body is, None if it comes in chunks."""
    return next((int(value) for name, value in headers if name == b"content-length"), None)


def limited(
    head_seconds: float, body_seconds: float, answer_seconds: float, connections: Connections | None = None
) -> type[HttpProtocol]:
    """Return the protocol with limits of its own, its connections counted in `connections`."""
    limits = {"head_seconds": head_seconds, "body_seconds": body_seconds, "answer_seconds": answer_seconds}
    own = {"counted": connections, "turns": ReadingTurns(), "repetition": Repetition()}
    return type("HttpProtocol", (HttpProtocol,), limits | own)


def _without_offers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name not in _OFFERS and name != b"connection"]
    options = [option.strip() for name, value in headers if name == b"connection" for option in value.split(b",")]
    return [*kept, *((b"connection", option) for option in options if option.lower() not in _OFFERS)]
