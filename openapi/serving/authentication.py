"""Who may call: which kind of bearer token an operation wants, and where the believed one ends up.

Connexion decides from the document which schemes an operation accepts; a scheme's `bearerFormat` names the kind of
token. An operation never opens by mistake: a scheme nobody knows is refused for everyone.

A signature over the raw body can only be checked by whoever reads the body. A scheme marked `x-verified-by-handler`
therefore lets a request through when its header or query parameter is there at all, without a principal; the handler
must check it before it believes anything.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import structlog
from connexion.lifecycle import ConnexionRequest
from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.operations import AbstractOperation
from connexion.security import NO_VALUE, AbstractSecurityHandler

from domain.errors import Unauthenticated
from domain.principals import Principal, TokenKind
from openapi.serving.routing import operation_of

Authenticate = Callable[[TokenKind, str], Awaitable[Principal]]
Verify = Callable[["Asking"], Awaitable[Any]]

_PRINCIPAL = "relay_principal"
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]{1,4096}=*)")

_log = structlog.get_logger()


class Asking:
    """A request as Connexion's security functions see it; a Connexion request is made of it when one needs more."""

    __slots__ = ("context", "scope")

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.context: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(ConnexionRequest(self.scope), name)


class _Guard(SecurityOperation):  # type: ignore[misc]  # Connexion is untyped
    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self.security:
            await self.verification_fn(Asking(scope))
        await self.next_app(scope, receive, send)


class _SecurityAPI(SecurityAPI):  # type: ignore[misc]
    def make_operation(self, operation: AbstractOperation) -> _Guard:
        guard: _Guard = _Guard.from_operation(
            operation, next_app=self.next_app, security_handler_factory=self.security_handler_factory
        )
        return guard


class Security(SecurityMiddleware):  # type: ignore[misc]
    """Connexion's security: which schemes an operation accepts, and what follows when none of them is met."""

    api_cls = _SecurityAPI

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._guards: dict[str | None, Any] = {}

    def add_api(self, specification: Any, **kwargs: Any) -> Any:
        """Guard the operations of `specification`."""
        api = super().add_api(specification, **kwargs)
        self._guards.update(api.operations)
        return api

    def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """Guard one request; what is not routed is passed on."""
        next_app: Any = self._guards.get(operation_of(scope), self.app)
        passed: Awaitable[None] = next_app(scope, receive, send)
        return passed


def security_map(authenticate: Authenticate) -> dict[str, type[AbstractSecurityHandler]]:
    """Return the handlers Connexion is to use: `authenticate` believes a token of a kind, or raises Unauthenticated."""

    class Bearer(AbstractSecurityHandler):  # type: ignore[misc]  # Connexion is untyped
        def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> Verify:
            del required_scopes
            return _verifier(security_scheme.get("bearerFormat"), authenticate)

    return {"bearer": Bearer, "apiKey": _Signature}


def _verifier(bearer_format: str | None, authenticate: Authenticate) -> Verify:
    kind = next((kind for kind in TokenKind if kind.value == bearer_format), None)
    if kind is None:
        _log.warning("security.unknown_scheme", bearer_format=bearer_format)

    async def verify(request: Asking) -> dict[str, Any]:
        token = bearer_token(request.scope["headers"])
        if kind is None:
            raise Unauthenticated
        principal = await authenticate(kind, token)
        request.scope[_PRINCIPAL] = principal
        return {"sub": principal.user_id}

    return verify


class _Signature(AbstractSecurityHandler):  # type: ignore[misc]  # Connexion is untyped
    def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> Verify:
        del required_scopes
        place, name = security_scheme["in"], security_scheme["name"]
        is_known = security_scheme.get("x-verified-by-handler") is True and place in ("header", "query")
        if not is_known:
            _log.warning("security.unknown_scheme", place=place, name=name)

        async def verify(request: Asking) -> Any:
            # Nothing is believed yet: there is no principal until the handler has checked the signature.
            return {} if is_known and _is_given(request.scope, place, name) else NO_VALUE

        return verify


def _is_given(scope: Mapping[str, Any], place: str, name: str) -> bool:
    if place == "header":
        wanted = name.lower().encode("latin-1")
        return any(header == wanted and value.strip() for header, value in scope["headers"])
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    return any(given == name for given, _ in query)


def bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the one bearer token among the request's headers.

    Raises:
        Unauthenticated: when there is no Authorization header, more than one, or it is not `Bearer <token>` (RFC 6750).
    """
    given = [value for name, value in headers if name == b"authorization"]
    found = _BEARER.fullmatch(given[0].strip(b" \t")) if len(given) == 1 else None
    if found is None:
        raise Unauthenticated("Missing or malformed bearer token")
    return found[1].decode("ascii")


def principal_of(scope: Mapping[str, Any]) -> Principal | None:
    """Return whose token was believed, or None on an operation that asks for none or checks a signature itself."""
    principal: Principal | None = scope.get(_PRINCIPAL)
    return principal
