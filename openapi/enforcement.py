"""The one middleware that enforces the served document, and the stack it stands in.

    Envelope           answers every error in the operation's own envelope; nothing internal leaves
    └── Addresses      from where, and whether too often; every request counts, whatever its path
        └── Routes           which operation
            └── Security         whose token (Connexion's decision)
                └── Enforcement      count, parse, validate, call the handler, validate the answer, serialise
                    └── Pages            /openapi.json, /docs, and `beyond` for what else is not an operation

Everything about an operation is compiled once, in `build`; what cannot be compiled stops the server there. What is not
an operation passes the layers untouched. A layer that only passes on is a plain function that returns what the next one
does: a coroutine less for every request.
"""

import asyncio
import contextlib
import copy
import fnmatch
import functools
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import orjson
import structlog
from connexion import ConnexionMiddleware
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.middleware.lifespan import Lifespan, LifespanMiddleware
from connexion.middleware.swagger_ui import SwaggerUIMiddleware
from connexion.operations import AbstractOperation
from connexion.options import SwaggerUIOptions
from connexion.resolver import Resolution, Resolver
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaSerializer
from starlette.exceptions import HTTPException

from domain import documents, large_texts
from domain.errors import ConfigurationError, InvalidRequest, NotFound, RateLimited, Unauthenticated
from domain.large_texts import LargeText, Part
from domain.principals import Principal
from openapi.authentication import Authenticate, Security, principal_of, security_map
from openapi.bodies import BodyRooms, BodyShare, Disconnected, IncomingBody, insist_on_json
from openapi.description import describe
from openapi.document import Contract, Operation
from openapi.exchange import Binding, Bindings, Handler, Request, Response, request_id
from openapi.findings import Finding, Refused, findings, property_order
from openapi.media import is_json
from openapi.parameters import Parameters
from openapi.problems import Answer, MethodNotAllowed, Problems, is_expected, unrouted
from openapi.references import Document
from openapi.registry import is_stub
from openapi.routing import Routes, operation_of
from openapi.schemas import Schemas, Validator, large_text_of

R = TypeVar("R")

Scope = Any
Receive = Any
Send = Any
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ANSWERING = "relay_answering"
_SOURCE_MAP = ".map"

_log = structlog.get_logger()


class Limits(Protocol):
    """Says who asks too often: each verb counts a request, and raises RateLimited when there were too many."""

    async def admit_address(self, address: str | None) -> None:
        """Count a request from an address."""
        ...

    async def admit_caller(self, principal: Principal) -> None:
        """Count a request of a caller whose token was believed."""
        ...


class HeavyWork(Protocol):
    """Runs what takes more than a few milliseconds off the event loop, the owners in turn."""

    async def run(self, owner: Hashable, work: Callable[[], R]) -> R:
        """Run `work`, which belongs to `owner`, and return its result."""
        ...


class _AnyThread:
    async def run(self, owner: Hashable, work: Callable[[], R]) -> R:
        del owner
        return await asyncio.to_thread(work)


class Undocumented(Exception):
    """Raised when a handler answers what the document does not declare."""


def build(
    contract: Contract,
    relay: object,
    authenticate: Authenticate,
    *,
    bindings: Bindings,
    handlers: Mapping[str, Handler],
    limits: Limits | None = None,
    max_body_bytes: int = 48 * 1024 * 1024,
    max_document_bytes: int = 4 * 1024 * 1024,
    max_document_values: int = 50_000,
    heavy_work: HeavyWork | None = None,
    held_body_bytes: int = 192 * 1024 * 1024,
    held_unverified_body_bytes: int = 144 * 1024 * 1024,
    pages: Mapping[str, bytes] | None = None,
    lifespan: Lifespan | None = None,
    beyond: App | None = None,
    has_docs: bool = True,
) -> ConnexionMiddleware:
    """Return the ASGI application that serves `contract`.

    `relay` is handed to every handler; `authenticate` believes a bearer token of a kind, or raises Unauthenticated.
    `bindings` are the generated ones and `handlers` the functions (see `registry`), both by METHOD and path. `pages`
    are further JSON documents by path, served as they are, and `beyond` answers what is neither. `limits` says who
    asks too often, `max_body_bytes` how long a body may be, `max_document_bytes` the JSON of it that is parsed in one
    go, `max_document_values` how many values it may hold, `heavy_work` runs what takes long, and `held_body_bytes` how
    much of large bodies is held at once, and `held_unverified_body_bytes` how much of those whose sender is not known
    yet; whoever brings more is asked to come back. `has_docs` says whether Swagger UI is served. Nothing is opened or
    connected here.

    Raises:
        ConfigurationError: when the generated types are not of this contract, or an operation cannot be enforced.
    """
    if bindings.generated_from != contract.served_digest:
        raise ConfigurationError("The generated types are of another document; run `make generate`.")
    schemas = Schemas(contract.served)
    enforced = {
        operation.id: Enforced(
            contract.served, operation, schemas, bindings.operations[operation.key], handlers[operation.key]
        )
        for operation in contract.operations
    }
    room = BodyRooms(held_body_bytes, held_unverified_body_bytes, max_body_bytes)
    for one in enforced.values():
        one.serve(relay, max_body_bytes, max_document_bytes, room, limits)
        one.weigh(max_document_values, heavy_work or _AnyThread())
    own = {"/openapi.json": contract.served, "/contract": describe(contract, handlers)}
    served = {path: orjson.dumps(body) for path, body in own.items()} | dict(pages or {})
    app = ConnexionMiddleware(
        _noted(beyond or not_found),
        lifespan=lifespan,
        middlewares=[
            functools.partial(Envelope, enforced=enforced),
            *([functools.partial(Addresses, limits=limits)] if limits is not None else []),
            Routes,
            Security,
            functools.partial(Enforcement, enforced=enforced),
            functools.partial(Pages, documents=served, has_docs=has_docs),
            LifespanMiddleware,
        ],
        resolver=_Resolver(handlers),
        security_map=security_map(authenticate),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, spec_path="/openapi.json", swagger_ui_path="/docs"),
    )
    app.add_api(_skeleton(contract, handlers))
    return app


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that nothing answers."""
    del receive, send
    if scope["type"] == "http":
        raise NotFound


def _skeleton(contract: Contract, handlers: Mapping[str, Handler]) -> Document:
    """Return what Connexion needs of the served document: paths, operationIds and security.

    Bodies and their schemas are enforced here. Connexion would resolve every reference in them, once per start and
    once per reader of the document.
    """
    paths: Document = {}
    for operation in contract.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = {
            "operationId": operation.id,
            "security": _security(operation, handlers[operation.key]),
            "responses": {"default": {"description": "See the served document."}},
        }
    schemes = contract.served.get("components", {}).get("securitySchemes", {}) | _CLOSED
    skeleton: Document = {"openapi": contract.served["openapi"], "info": contract.served["info"]}
    skeleton |= {"servers": contract.served.get("servers", []), "paths": paths}
    return copy.deepcopy(skeleton | {"components": {"securitySchemes": schemes}})


_CLOSED: Document = {"closed": {"type": "http", "scheme": "bearer", "bearerFormat": "none that exists"}}


def _security(operation: Operation, handler: Handler) -> list[dict[str, list[str]]]:
    """Return who may call; an operation that a new document left open stays closed until the overlay says why it is."""
    if operation.is_open and not operation.is_public and not is_stub(handler):
        _log.warning("security.closed", operation=operation.key)
        return [{"closed": []}]
    return operation.security


class _Resolver(Resolver):  # type: ignore[misc]  # Connexion is untyped
    """Finds handlers by METHOD and path."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        super().__init__()
        self._handlers = handlers

    def resolve(self, operation: AbstractOperation) -> Resolution:
        key = f"{operation.method.upper()} {operation.path}"
        return Resolution(self._handlers[key], operation.operation_id)


# One operation


class Enforced:
    """One operation: from the authenticated request to the validated answer."""

    def __init__(
        self, document: Document, operation: Operation, schemas: Schemas, binding: Binding, handler: Handler
    ) -> None:
        self.operation = operation
        self.problems = Problems(document, operation, schemas)
        self._handler = handler
        self._parameters = Parameters(document, operation, schemas, binding.parameters)
        self._responses = frozenset(binding.responses)
        self._answers = _response_validators(operation, schemas)
        self._body_required = bool((operation.body or {}).get("required"))
        self._body_schema = operation.body_schema
        if self._body_schema is not None:
            self._validator = schemas.compile(self._body_schema, "request")
            self._order = property_order(document, self._body_schema)
            self._large_text = large_text_of(document, self._body_schema)
            self._read = TypeAdapter(binding.body).validator.validate_python
        self.serve(None, 0, 0, BodyRooms(0, 0, 0))
        self.weigh(0, _AnyThread())

    def serve(
        self,
        relay: object,
        max_body_bytes: int,
        max_document_bytes: int,
        room: BodyRooms,
        limits: Limits | None = None,
    ) -> None:
        """Hand over the services, the limits of bodies that set none of their own, and what all requests share."""
        self._relay, self._room, self._limits = relay, room, limits
        self._limit = int(self.operation.definition.get("x-max-body-bytes", max_body_bytes))
        self._max_document = max_document_bytes
        if self._body_schema is not None and self._large_text is None:
            self._limit = min(self._limit, max_document_bytes)

    def weigh(self, max_values: int, heavy_work: HeavyWork) -> None:
        """Hand over how many values a body may hold that sets no limit of its own, and what runs the heavy work."""
        self._max_values = int(self.operation.definition.get("x-max-values", max_values))
        self._heavy_work = heavy_work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = principal_of(scope)
        if self._limits is not None and principal is not None:
            await self._limits.admit_caller(principal)
        client = scope.get("client")
        share = self._room.share(principal.organization_id if principal else None, client[0] if client else None)
        try:
            answer = await self._answered(scope, receive, principal, share)
        finally:
            share.free()
        await send_answer(answer, scope, send)

    async def _answered(self, scope: Scope, receive: Receive, principal: Principal | None, share: BodyShare) -> Answer:
        arguments = self._parameters.read(scope)
        headers = dict(scope["headers"])
        incoming = IncomingBody(headers, receive, self._limit, share)
        large_text, is_heavy = None, False
        owner = principal.organization_id if principal else scope.get("client")
        if self._body_schema is not None:
            insist_on_json(headers)
            parts = await self._received(incoming)
            is_heavy = self._is_heavy(parts)
            taken = functools.partial(self._taken, parts, is_heavy=is_heavy)
            arguments["body"], large_text = await self._heavy_work.run(owner, taken) if is_heavy else taken()
        request = Request(self._relay, self.operation.id, scope, principal, large_text, is_heavy, incoming.chunks)
        response = await self._handler(request, **arguments)
        if response.is_heavy:
            return await self._heavy_work.run(owner, functools.partial(self._answer, response))
        return self._answer(response)

    # The body

    async def _received(self, incoming: IncomingBody) -> list[Part]:
        """Return the body as it came; the text that may be large apart when it is."""
        if self._large_text is not None:
            return await incoming.parts(self._large_text, self._max_document)
        raw = await incoming.whole()
        return [(False, raw)] if raw else []

    def _is_heavy(self, parts: list[Part]) -> bool:
        if self._large_text is None:
            return documents.is_heavy(*(piece for _, piece in parts))
        return large_texts.is_heavy(parts, self._large_text)

    def _taken(self, parts: list[Part], *, is_heavy: bool) -> tuple[Any, LargeText | None]:
        """Return the body, parsed and validated, and the text that was left where it is."""
        if not parts:
            self._insist_on_no_body()
            return None, None
        large_text = None
        if self._large_text is None:
            ((_, raw),) = parts
            value = documents.load(raw, self._max_values)
        else:
            value, large_text = large_texts.read(parts, self._large_text, self._max_document, self._max_values)
        if not self._validator.is_valid(value):
            raise Refused(findings(self._validator, value, self._order, first_only=is_heavy) or [_UNCLEAR])
        try:
            return self._read(value), large_text
        except ValidationError as error:
            raise Refused([_finding(error)]) from error

    def _insist_on_no_body(self) -> None:
        if self._body_required:
            raise InvalidRequest("Request body is missing")

    # The answer

    def _answer(self, response: Response[Any]) -> Answer:
        if type(response) not in self._responses:
            raise Undocumented(f"an answer of type {type(response).__name__}")
        if response.media_type != "application/json" and not is_json(response.media_type or ""):
            return _as_it_is(response)
        value = _plain(response.body)
        validator = self._answers.get(response.status)
        if validator is not None and not validator.is_valid(value):
            broken = ", ".join(f"{finding.field or 'body'} {finding.rule}" for finding in findings(validator, value))
            raise Undocumented(f"an answer {response.status} whose {broken}")
        return Answer(response.status, documents.dump(value), response.media_type, response.headers)


def _as_it_is(response: Response[Any]) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    media_type = headers.pop("content-type", response.media_type)
    if media_type is not None and ("*" in media_type or not fnmatch.fnmatchcase(media_type, response.media_type or "")):
        raise Undocumented(f"an answer of the media type {media_type}")
    return Answer(response.status, response.body or b"", media_type, headers, response.streamed)


def _plain(body: Any) -> Any:
    # The validator speaks next; pydantic's own warnings would quote the values.
    serializer: SchemaSerializer | None = getattr(type(body), "__pydantic_serializer__", None)
    if serializer is None:
        return body
    return serializer.to_python(body, mode="json", by_alias=True, exclude_unset=True, warnings="none")


_UNCLEAR = Finding((), "invalid", "is not valid")


def _finding(error: ValidationError) -> Finding:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Finding(tuple(first["loc"]), first["type"], "is not valid")


def _response_validators(operation: Operation, schemas: Schemas) -> dict[int, Validator]:
    return {
        int(status): schemas.compile(described.get("schema", {}), "response")
        for status, response in operation.responses.items()
        for media_type, described in response.get("content", {}).items()
        if status.isdigit() and is_json(media_type)
    }


# Sending


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send `answer`; a HEAD request gets its headers alone."""
    scope[_ANSWERING] = True
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.media_type is not None:
        headers.append((b"content-type", answer.media_type.encode("latin-1")))
    if answer.status not in (204, 304) and answer.streamed is None:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.streamed is not None:
        async with contextlib.aclosing(answer.streamed) as chunks:
            await _send_chunks(chunks, scope, send)
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


async def _send_chunks(chunks: AsyncIterator[bytes], scope: Scope, send: Send) -> None:
    if scope["method"] != "HEAD":
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


# The layers


class _EnforcementAPI(RoutedAPI):  # type: ignore[misc]  # Connexion is untyped
    def __init__(self, *args: Any, enforced: Mapping[str, Enforced], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._enforced = enforced
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> Enforced:
        return self._enforced[operation.operation_id]


class Enforcement(RoutedMiddleware):  # type: ignore[misc]  # Connexion is untyped
    """Connexion's last layer: hands the request to the operation it was routed to."""

    api_cls = _EnforcementAPI

    def __init__(self, app: Any, enforced: Mapping[str, Enforced]) -> None:
        super().__init__(app)
        self._enforced = enforced

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request; what is not routed is passed on."""
        next_app: Any = self._enforced.get(operation_of(scope) or "", self.app)
        passed: Awaitable[None] = next_app(scope, receive, send)
        return passed

    def add_api(self, specification: Any, **kwargs: Any) -> Any:
        """Register the operations of `specification`."""
        return super().add_api(specification, enforced=self._enforced, **kwargs)


class Addresses:
    """Turns away those who ask too often, before anything about them is believed.

    A refusal is still routed, so that it is answered in the envelope of its operation.
    """

    def __init__(self, app: Routes, limits: Limits) -> None:
        self.app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, and pass it on."""
        if scope["type"] == "http":
            client = scope.get("client")
            try:
                await self._limits.admit_address(client[0] if client else None)
            except RateLimited:
                self.app.route(scope)
                raise
        await self.app(scope, receive, send)


class Pages(SwaggerUIMiddleware):  # type: ignore[misc]  # Connexion is untyped
    """Swagger UI at /docs, without its source maps, and JSON documents at their paths; everything else is passed on."""

    def __init__(self, app: Any, documents: Mapping[str, bytes], *, has_docs: bool = True) -> None:
        super().__init__(app)
        self._documents = documents
        self._has_docs = has_docs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page, or pass the request on."""
        path = scope.get("path", "")
        if path in self._documents:
            if scope["method"] not in ("GET", "HEAD"):
                raise MethodNotAllowed(("GET", "HEAD"))
            await send_answer(Answer(200, self._documents[path]), scope, send)
        elif self._has_docs and (path == "/docs" or path.startswith("/docs/")) and not path.endswith(_SOURCE_MAP):
            await super().__call__(scope, receive, _noting(scope, send))
        else:
            await self.app(scope, receive, send)


class Envelope:
    """The outermost layer: whatever goes wrong below is answered here, in the envelope of the request's operation."""

    def __init__(self, app: Any, enforced: Mapping[str, Enforced]) -> None:
        self.app = app
        self._enforced = enforced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, errors included."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except Disconnected:
            return
        except Exception as error:
            self._note(error, scope)
            if _ANSWERING in scope:
                raise
            await send_answer(self._answer(error, scope), scope, send)

    def _answer(self, error: Exception, scope: Scope) -> Answer:
        known = _translated(error)
        enforced = self._enforced.get(operation_of(scope) or "")
        return unrouted(known) if enforced is None else enforced.problems.answer(known)

    def _note(self, error: Exception, scope: Scope) -> None:
        # The frames say where; the message of a foreign error may quote what the caller sent.
        if is_expected(_translated(error)):
            return
        _log.error(
            "request.failed",
            request_id=request_id(scope),
            operation=operation_of(scope),
            error=type(error).__name__,
            reason=str(error) if isinstance(error, Undocumented) else None,
            frames=_frames(error),
        )


def _noted(app: App) -> App:
    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _noting(scope, send))

    return passed


def _noting(scope: Scope, send: Send) -> Send:
    async def noted(message: Any) -> None:
        scope[_ANSWERING] = True
        await send(message)

    return noted


def _translated(error: Exception) -> Exception:
    """Return a foreign layer's error as one of ours."""
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return MethodNotAllowed(tuple(sorted((error.headers or {}).get("Allow", "").split(", "))))
    # Connexion says 401 or 403 when none of an operation's schemes finds what it looks for.
    return {401: Unauthenticated(), 403: Unauthenticated(), 404: NotFound()}.get(error.status_code, error)


def _frames(error: BaseException) -> list[str]:
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
