"""What passes between the enforcement of the contract and a handler.

A handler is a function of one operation: `async def <operationId>(request, …) -> <one of its responses>`. The values
the document declares arrive by name and already validated; `request` carries the rest. It answers with one of the
response classes generated for its operation, or raises an error from `domain.errors`, which is answered in the
operation's own envelope.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from starlette.datastructures import Headers

from domain.errors import RelayError, Unauthenticated
from domain.large_texts import LargeText
from domain.principals import Principal

Scope: TypeAlias = MutableMapping[str, Any]

R_co = TypeVar("R_co", covariant=True)
B_co = TypeVar("B_co", covariant=True)


@dataclass(slots=True)
class Request(Generic[R_co]):
    """One request that passed routing, authentication and validation.

    `relay` is the application's own services, `operation` the operationId, `scope` what the server says of the request.
    `principal` is None on an operation that is open or whose signature the handler has yet to check. `large_text` is
    the value of the body's member that the document marks `x-large-text`, when it is large; the body has a mark there.
    `is_heavy` says that going through the body takes more than a few milliseconds.
    """

    relay: R_co
    operation: str
    scope: Scope = field(default_factory=dict, repr=False)
    principal: Principal | None = None
    large_text: LargeText | None = None
    is_heavy: bool = False
    open_stream: Callable[[], AsyncIterator[bytes]] = field(default=lambda: _no_body(), repr=False)

    @property
    def id(self) -> str:
        """The id the server's outer layer gave the request, or an empty string."""
        return request_id(self.scope)

    @property
    def target(self) -> str:
        """The path and the query as they arrived."""
        query = self.scope.get("query_string", b"").decode("latin-1")
        path: str = (self.scope.get("raw_path") or self.scope["path"].encode()).decode("latin-1")
        return f"{path}?{query}" if query else path

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, looked up whatever their case."""
        return Headers(scope=self.scope)

    @property
    def client(self) -> str | None:
        """The peer's address as the server saw it."""
        client = self.scope.get("client")
        return client[0] if client else None

    @property
    def caller(self) -> Principal:
        """The believed token's principal.

        Raises:
            Unauthenticated: on an operation that asks for no token.
        """
        if self.principal is None:
            raise Unauthenticated
        return self.principal

    def stream(self) -> AsyncIterator[bytes]:
        """Return the undecoded body, chunk by chunk, of an operation whose body is not parsed; it can be read once.

        Raises:
            PayloadTooLarge: while reading, as soon as the body exceeds the operation's limit.
        """
        return self.open_stream()


async def _no_body() -> AsyncIterator[bytes]:
    return
    yield b""


def request_id(scope: Scope) -> str:
    """Return the request id the server's outer layer gave, or an empty string."""
    found: str = (scope.get("state") or {}).get("request_id", "")
    return found


@dataclass(slots=True)
class Response(Generic[B_co]):
    """One documented answer; the generated subclasses fix `status` and the type of `body`.

    `body` is a generated model (or a list or plain value where the document says so), `bytes` where the media type is
    not JSON, and None where the document declares no content. What is not JSON may be `streamed` instead: sent chunk by
    chunk as it comes, with the `Content-Length` its headers say. Where the document declares a range of media types
    (`audio/*`), the headers say which by `Content-Type`. A body that `is_heavy` is validated and written off the event
    loop.
    """

    status: ClassVar[int]
    media_type: ClassVar[str | None] = "application/json"

    body: B_co
    headers: Mapping[str, str] = field(default_factory=dict)
    streamed: AsyncGenerator[bytes, None] | None = None
    is_heavy: bool = False


Handler: TypeAlias = Callable[..., Awaitable[Response[Any]]]


@dataclass(frozen=True, slots=True)
class Binding:
    """What was generated for one operation.

    `handler` is where its handler lives (`calls.post_calls_ingest`), `body` the type its body is read as (None when it
    takes no body, or takes it undecoded), `parameters` the keyword each parameter is passed as, by place and name.
    `is_stub` says that the handler was a stub nobody had written when the types were generated.
    """

    handler: str
    body: Any
    parameters: Mapping[tuple[str, str], str]
    responses: tuple[type[Response[Any]], ...]
    is_stub: bool = False

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords a handler of the operation is called with."""
        return frozenset(self.parameters.values()) | ({"body"} if self.body is not None else frozenset())


@dataclass(frozen=True, slots=True)
class Bindings:
    """What was generated for every operation, by METHOD and path, and the digest of the document it was made from."""

    generated_from: str
    operations: Mapping[str, Binding] = field(repr=False)


class NotWritten(RelayError):
    """Raised by the stub of an operation that the document declares and nobody has written yet."""

    code = "NOT_IMPLEMENTED"
