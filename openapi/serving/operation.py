"""One operation: from the authenticated request to the validated answer.

Everything about it is compiled once, at start; what cannot be compiled stops the server there.
"""

import fnmatch
import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaSerializer

from domain import documents, large_texts
from domain.errors import InvalidRequest
from domain.large_texts import LargeText, Part
from domain.principals import Principal
from openapi.document import Operation
from openapi.exchange import Binding, Handler, Request, Response
from openapi.media import is_json
from openapi.references import Document
from openapi.schemas import Schemas, Validator, large_text_of
from openapi.serving.answers import Answer, send_answer
from openapi.serving.authentication import principal_of
from openapi.serving.bodies import BodyLimits, BodyRooms, BodyShare, IncomingBody, insist_on_json
from openapi.serving.findings import Finding, InvalidValues, findings, property_order
from openapi.serving.parameters import Parameters
from openapi.serving.problems import Problems

R = TypeVar("R")

Scope = Any
Receive = Any
Send = Any


class Counters(Protocol):
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


class Undocumented(Exception):
    """Raised when a handler answers what the document does not declare."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the operations of one application share.

    `relay` is handed to every handler. `limits` counts callers, `room` holds what of large bodies is held at once, and
    `heavy_work` runs what takes long. `bodies` holds where an operation sets no limit of its own.
    """

    relay: object
    limits: Counters | None
    room: BodyRooms
    heavy_work: HeavyWork
    bodies: BodyLimits


class Enforced:
    """One operation: from the authenticated request to the validated answer."""

    def __init__(
        self,
        document: Document,
        operation: Operation,
        schemas: Schemas,
        binding: Binding,
        handler: Handler,
        problems: Problems,
        shared: Shared,
    ) -> None:
        self.operation = operation
        self.problems = problems
        self._handler = handler
        self._shared = shared
        self._parameters = Parameters(document, operation, schemas, binding.parameters)
        self._responses = frozenset(binding.responses)
        self._answers = _response_validators(operation, schemas)
        self._body_required = bool((operation.body or {}).get("required"))
        self._body_schema = operation.body_schema
        self._large_text: str | None = None
        self._limit = int(operation.definition.get("x-max-body-bytes", shared.bodies.body_bytes))
        self._max_document = shared.bodies.document_bytes
        self._max_values = int(operation.definition.get("x-max-values", shared.bodies.document_values))
        if self._body_schema is not None:
            self._compile_body(document, self._body_schema, schemas, binding)

    def _compile_body(self, document: Document, schema: Mapping[str, Any], schemas: Schemas, binding: Binding) -> None:
        self._validator = schemas.compile(schema, "request")
        self._order = property_order(document, schema)
        self._large_text = large_text_of(document, schema)
        self._read = TypeAdapter(binding.body).validator.validate_python
        if self._large_text is None:
            self._limit = min(self._limit, self._max_document)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = principal_of(scope)
        if self._shared.limits is not None and principal is not None:
            await self._shared.limits.admit_caller(principal)
        client = scope.get("client")
        share = self._shared.room.share(principal.organization_id if principal else None, client[0] if client else None)
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
            arguments["body"], large_text = await self._shared.heavy_work.run(owner, taken) if is_heavy else taken()
        request = Request(
            self._shared.relay, self.operation.id, scope, principal, large_text, is_heavy, incoming.chunks
        )
        response = await self._handler(request, **arguments)
        if response.is_heavy:
            return await self._shared.heavy_work.run(owner, functools.partial(self._answer, response))
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
            raise InvalidValues(findings(self._validator, value, self._order, first_only=is_heavy) or [_UNCLEAR])
        try:
            return self._read(value), large_text
        except ValidationError as error:
            raise InvalidValues([_finding(error)]) from error

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
