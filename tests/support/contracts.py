"""Contracts made for a test, with the types a generated module would have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from connexion import ConnexionMiddleware

from app import body_limits, rules_of
from config import Settings
from domain import documents
from domain.errors import Unauthenticated
from domain.principals import Principal, TokenKind
from handlers.own_paths import OwnPaths, fixed
from handlers.swagger_pages import swagger_pages
from openapi import document
from openapi.document import Contract
from openapi.exchange import Binding, Bindings, Handler, Response
from openapi.generating.operation_code import parameter_names
from openapi.serving import assembly
from openapi.serving.assembly import documents_of
from version import VERSION

TOKENS = {
    "jwt-of-org-1": TokenKind.JWT,
    "key-of-org-1": TokenKind.API_KEY,
    "listening-key-of-org-1": TokenKind.LISTENING_KEY,
    "secret-of-org-1": TokenKind.TOOL_SECRET,
}


@dataclass
class Lab:
    """Services of a test: what handlers were given, in order, and the error the next one is to raise."""

    given: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    authentication_error: Exception | None = None

    async def authenticate(self, kind: TokenKind, token: str) -> Principal:
        """Believe the tokens above, each as what it is."""
        if self.authentication_error is not None:
            raise self.authentication_error
        if TOKENS.get(token) is not kind:
            raise Unauthenticated
        return Principal(kind, "org-1")


def contract_of(
    paths: Mapping[str, Any], *, security: list[dict[str, list[str]]] | None = None, **components: Any
) -> Contract:
    """Return a contract of nothing but `paths` and `components`; `security` is the one all operations inherit."""
    served = {
        "openapi": "3.0.3",
        "info": {"title": "A test", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}}
        | components,
    } | ({} if security is None else {"security": security})
    empty = b"{overlay: 1.0.0, info: {title: t, version: '1'}, actions: []}"
    return document.assemble(documents.dump(served), empty)


def bindings_of(contract: Contract) -> Bindings:
    """Return bindings whose bodies are plain JSON values and whose answers are `answer(…)`."""
    return Bindings(
        contract.served_digest,
        {
            operation.key: Binding(
                handler=f"{operation.module}.{operation.id}",
                body=Any,
                parameters=parameter_names(operation),
                responses=(Answered, *(_response(int(status)) for status in operation.responses if status.isdigit())),
            )
            for operation in contract.operations
        },
    )


class Answered(Response[Any]):
    """An answer 200 with whatever body."""

    __slots__ = ()
    status: ClassVar[int] = 200


def _response(status: int) -> type[Response[Any]]:
    return type(f"Answered{status}", (Response,), {"__slots__": (), "status": status})


BODIES = body_limits(rules_of(Settings(_env_file=None)))
"""What bodies may be unless a test says otherwise: the defaults."""


def build(
    contract: Contract, lab: Lab, handlers: Mapping[str, Handler], bindings: Bindings, **options: Any
) -> ConnexionMiddleware:
    """Return the application that serves `contract`."""
    pages = {path: fixed("application/json", body) for path, body in documents_of(contract, bindings, VERSION).items()}
    options.setdefault("own_paths", partial(OwnPaths, pages=pages | swagger_pages()))
    options.setdefault("bodies", BODIES)
    return assembly.build(contract, lab, lab.authenticate, bindings=bindings, handlers=handlers, **options)
