"""HTTP/1.1 as the server reads it: uvicorn's protocol, with three doors closed that it leaves open.

A head (request line and headers) has a limit, so that nobody can fill the memory before showing a token. Trailers are
dropped: they arrive after the body and must not pass for headers (RFC 9110, 6.5.1), least of all for Authorization. An
offer to upgrade is ignored and the request served as it stands (RFC 9110, 7.8); uvicorn would lose its body.
"""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024

_LINGER_SECONDS = 1.0
_TOO_LARGE = b'{"success":false,"error":"Request headers are too large"}'
_OFFERS = frozenset({b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """Reads requests from one connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._head_bytes = 0
        self._is_refused = False

    def data_received(self, data: bytes) -> None:
        """Read what arrived; let go of who sends a head without end."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
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

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless it is a trailer."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End the head; a request that offers an upgrade is read again without the offer."""
        self._is_in_head = False
        if not self._offers_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._offers_upgrade():
            super().on_message_complete()

    def _offers_upgrade(self) -> bool:
        # CONNECT looks like an upgrade to the parser; it is a method like any other, and one that nothing here has.
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _decline(self, rest: bytes) -> None:
        if self.parser.get_method() == b"CONNECT":
            return
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in _without_offers(self.headers)]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def _refuse_head(self) -> None:
        headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(_TOO_LARGE)
        self.logger.warning("Request headers without end refused.")
        self.transport.write(STATUS_LINE[431] + headers + _TOO_LARGE)
        # Closed while data is still arriving, the connection would be reset and the answer lost.
        self._is_refused = True
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _without_offers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name not in _OFFERS and name != b"connection"]
    options = [option.strip() for name, value in headers if name == b"connection" for option in value.split(b",")]
    return [*kept, *((b"connection", option) for option in options if option.lower() not in _OFFERS)]
