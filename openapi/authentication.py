"""Bearer tokens: which kind an operation wants, and where the believed one ends up.

Connexion decides from the document which schemes an operation accepts; a scheme's `bearerFormat` names the kind of
token. An operation never opens by mistake: a scheme nobody knows is refused for everyone.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from connexion.lifecycle import ConnexionRequest
from connexion.security import AbstractSecurityHandler

from domain.errors import Unauthenticated
from domain.principals import Principal, TokenKind

Authenticate = Callable[[TokenKind, str], Awaitable[Principal]]
Verify = Callable[[ConnexionRequest], Awaitable[dict[str, Any]]]

_PRINCIPAL = "relay_principal"
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]{1,4096}=*)")

_log = structlog.get_logger()


def security_map(authenticate: Authenticate) -> dict[str, type[AbstractSecurityHandler]]:
    """Return the handlers Connexion is to use: `authenticate` believes a token of a kind, or raises Unauthenticated."""

    class Bearer(AbstractSecurityHandler):  # type: ignore[misc]  # Connexion is untyped
        def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> Verify:
            del required_scopes
            return _verifier(security_scheme.get("bearerFormat"), authenticate)

    return {"bearer": Bearer}


def _verifier(bearer_format: str | None, authenticate: Authenticate) -> Verify:
    kind = next((kind for kind in TokenKind if kind.value == bearer_format), None)
    if kind is None:
        _log.warning("security.unknown_scheme", bearer_format=bearer_format)

    async def verify(request: ConnexionRequest) -> dict[str, Any]:
        token = bearer_token(request.scope["headers"])
        if kind is None:
            raise Unauthenticated
        principal = await authenticate(kind, token)
        request.scope[_PRINCIPAL] = principal
        return {"sub": principal.user_id}

    return verify


def bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the one bearer token among the request's headers.

    Raises:
        Unauthenticated: when there is no Authorization header, more than one, or it is not `Bearer <token>` (RFC 6750).
    """
    given = [value for name, value in headers if name.lower() == b"authorization"]
    found = _BEARER.fullmatch(given[0].strip(b" \t")) if len(given) == 1 else None
    if found is None:
        raise Unauthenticated("Missing or malformed bearer token")
    return found[1].decode("ascii")


def principal_of(scope: Mapping[str, Any]) -> Principal | None:
    """Return whose token was believed, or None on an operation that asks for none."""
    principal: Principal | None = scope.get(_PRINCIPAL)
    return principal
