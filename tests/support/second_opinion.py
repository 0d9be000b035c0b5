"""Another reader of the served document, `openapi-core`, asked about every exchange.

Our own enforcement has already had its say when an answer arrives. Whatever it let in or out must be right in the eyes
of somebody who shares no code with it, and what it turned away for its shape must be wrong there too.
"""

import json
import warnings
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

import httpx
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.templating.paths.exceptions import PathError
from openapi_core.testing import MockRequest, MockResponse
from werkzeug.datastructures import Headers, ImmutableMultiDict

from tests.support.contract import CONTRACT

_HOST = "http://localhost:2212"
_OUTSIDE = frozenset({404, 405})
_SHAPE = ("Missing required field: ", "Unknown field: ", "Request body is missing")


class Disagreement(AssertionError):
    """Raised when the second opinion differs from what the server did."""


@lru_cache(maxsize=1)
def _served() -> OpenAPI:
    return OpenAPI.from_dict(CONTRACT.served)


def insist(
    method: str,
    target: str,
    request_headers: Mapping[str, str],
    request_body: bytes,
    status: int,
    response_headers: Mapping[str, str],
    response_body: bytes,
    opinion: OpenAPI | None = None,
) -> None:
    """Check one exchange; `target` is the path with its query, `opinion` another document than the served one.

    Raises:
        Disagreement: when the answer is not one the document declares, or its request should have been treated
            otherwise.
    """
    reader = opinion or _served()
    request = _request(method, target, request_headers, request_body)
    response = MockResponse(
        response_body, status, dict(response_headers), response_headers.get("content-type", "").partition(";")[0]
    )
    try:
        reader.validate_response(request, response)
    except PathError:
        if status not in _OUTSIDE and method not in ("OPTIONS", "HEAD"):
            raise Disagreement(f"{method} {target} is no operation and was answered {status}") from None
        return
    except OpenAPIError as error:
        if method == "HEAD" or status in _OUTSIDE:
            return
        raise Disagreement(f"{method} {target}: the answer {status} is not as documented: {_reason(error)}") from error
    _insist_on_request(reader, request, status, response_body)


def _insist_on_request(reader: OpenAPI, request: MockRequest, status: int, answer: bytes) -> None:
    said = _said(answer)
    accepted = status < 300 and said.get("success") is not False
    refused = status == 400 and _sentence(said).startswith(_SHAPE)
    try:
        if accepted or refused:
            _validate(reader, request)
    except OpenAPIError as error:
        if accepted and not _accepts_more(request):
            raise Disagreement(f"{request.path}: accepted, and should not have been: {_reason(error)}") from error
        return
    if refused:
        raise Disagreement(f"{request.path}: refused ({_sentence(said)}), and should not have been")


def _accepts_more(request: MockRequest) -> bool:
    """Tell whether the overlay says of the operation that it takes more than its schema."""
    operation = CONTRACT.served["paths"].get(request.path, {}).get(request.method.lower(), {})
    return "x-accepts-more" in operation


def _validate(reader: OpenAPI, request: MockRequest) -> None:
    with warnings.catch_warnings():
        # It is the only word OpenAPI 3.0 has for a parameter that may be blank.
        warnings.filterwarnings("ignore", "Use of allowEmptyValue", DeprecationWarning)
        reader.validate_request(request)


def _said(answer: bytes) -> dict[str, object]:
    try:
        body = json.loads(answer)
    except ValueError:
        return {}  # no answer at all, or audio; whether it may be that was settled before
    return body if isinstance(body, dict) else {}


def _sentence(said: Mapping[str, object]) -> str:
    error = said.get("error")
    return str(error.get("message") if isinstance(error, dict) else error)


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    inner = f" ({_reason(cause)})" if cause is not None else ""
    problems = "; ".join(str(problem) for problem in getattr(error, "schema_errors", []))
    return f"{type(error).__name__} {error}{inner} {problems}"[:600]


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> MockRequest:
    parts = urlsplit(target)
    content_type = headers.get("content-type", "application/json").partition(";")[0]
    request = MockRequest(_HOST, method, parts.path, data=body, content_type=content_type)
    request.parameters.query = ImmutableMultiDict(parse_qsl(parts.query, keep_blank_values=True))
    request.parameters.header = Headers(dict(headers))
    return request


async def hear(response: httpx.Response) -> None:
    """Ask about an exchange of an `httpx.AsyncClient`; give it as a response hook.

    The server's own pages and bodies that were streamed are nobody else's business.
    """
    request = response.request
    if not request.url.path.startswith("/api/"):
        return
    await response.aread()
    try:
        sent = request.content
    except httpx.RequestNotRead:
        return
    insist(
        request.method,
        request.url.raw_path.decode("ascii"),
        request.headers,
        sent,
        response.status_code,
        response.headers,
        response.content,
    )
