"""Every layer a request passes, in one list, and what they are made of.

`build` lists them from the outside in: those of `handlers/` that see every request, the contract's own between
Connexion's routing and security, and last the paths that are no operations. Everything about an operation is compiled
once, here; what cannot be compiled stops the server. What is not an operation passes the contract's layers untouched.
"""

import asyncio
import copy
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import orjson
import structlog
from connexion import ConnexionMiddleware
from connexion.middleware.lifespan import Lifespan, LifespanMiddleware
from connexion.operations import AbstractOperation
from connexion.options import SwaggerUIOptions
from connexion.resolver import Resolution, Resolver

from domain.errors import ConfigurationError, NotFound
from domain.principals import TokenKind
from openapi.document import Contract, Operation
from openapi.envelopes import Envelopes
from openapi.exchange import Bindings, Handler
from openapi.references import Document
from openapi.schemas import Schemas
from openapi.serving.authentication import Authenticate, Security, security_map
from openapi.serving.bodies import BodyLimits, BodyRooms
from openapi.serving.description import describe
from openapi.serving.layers import Addresses, App, Enforcement, Envelope, Layer, Receive, Scope, Send, noted
from openapi.serving.operation import Counters, Enforced, HeavyWork, Shared
from openapi.serving.problems import Problems
from openapi.serving.routing import Routes

R = TypeVar("R")

_log = structlog.get_logger()


class _AnyThread:
    async def run(self, owner: Hashable, work: Callable[[], R]) -> R:
        del owner
        return await asyncio.to_thread(work)


def build(
    contract: Contract,
    relay: object,
    authenticate: Authenticate,
    *,
    bindings: Bindings,
    handlers: Mapping[str, Handler],
    bodies: BodyLimits,
    limits: Counters | None = None,
    heavy_work: HeavyWork | None = None,
    lifespan: Lifespan | None = None,
    client_addresses: Layer | None = None,
    observation: Layer | None = None,
    cross_origin: Layer | None = None,
    page_headers: Layer | None = None,
    own_paths: Layer | None = None,
) -> ConnexionMiddleware:
    """Return the ASGI application that serves `contract`.

    `relay` is handed to every handler; `authenticate` believes a bearer token of a kind, or raises Unauthenticated.
    `bindings` are the generated ones and `handlers` the functions (see `registry`), both by METHOD and path. `bodies`
    says how much is taken, `limits` who asks too often, and `heavy_work` runs what takes long. The layers that are not
    of the contract are given by name; they stand in the one list below. Nothing is opened or connected here.

    Raises:
        ConfigurationError: when the generated types are not of this contract, or an operation cannot be enforced.
    """
    if bindings.generated_from != contract.served_digest:
        raise ConfigurationError("The generated types are of another document; run `make generate`.")
    schemas = Schemas(contract.served)
    envelopes = _insist_on_words(contract, schemas)
    shared = Shared(
        relay,
        limits,
        BodyRooms(bodies),
        heavy_work or _AnyThread(),
        bodies,
    )
    enforced = {
        operation.id: Enforced(
            contract.served,
            operation,
            schemas,
            bindings.operations[operation.key],
            handlers[operation.key],
            Problems(operation, envelopes.of(operation)),
            shared,
        )
        for operation in contract.operations
    }
    layers: list[Layer | None] = [
        client_addresses,  # handlers/client_addresses.py: the client, where a trusted proxy names it
        observation,  # handlers/observation.py: an id, a log line, figures, headers of every answer
        cross_origin,  # handlers/cross_origin.py: which pages may read the answer
        page_headers,  # handlers/page_headers.py: what pages may do
        functools.partial(Envelope, enforced=enforced),  # every error in the operation's own envelope
        functools.partial(Addresses, limits=limits) if limits is not None else None,  # whether too often
        Routes,  # which operation
        Security,  # whose token (Connexion's decision)
        functools.partial(Enforcement, enforced=enforced),  # count, parse, validate, handle, validate, serialise
        functools.partial(_noting, own_paths) if own_paths is not None else None,  # documents, pages, health, metrics
        LifespanMiddleware,
    ]
    app = ConnexionMiddleware(
        noted(not_found),
        lifespan=lifespan,
        middlewares=[layer for layer in layers if layer is not None],
        resolver=_Resolver(handlers),
        security_map=security_map(authenticate),
        swagger_ui_options=SwaggerUIOptions(swagger_ui=False, serve_spec=False),
    )
    app.add_api(_skeleton(contract))
    return app


def documents_of(contract: Contract, bindings: Bindings, version: str) -> dict[str, bytes]:
    """Return the JSON documents the server shows about its contract, by path; `version` is the server's own."""
    described = {"serverVersion": version, **describe(contract, bindings)}
    shown = {"/openapi.json": contract.served, "/contract": described}
    return {path: orjson.dumps(document) for path, document in shown.items()}


def _noting(own_paths: Layer, app: App) -> App:
    return noted(own_paths(app))


def _insist_on_words(contract: Contract, schemas: Schemas) -> Envelopes:
    envelopes = Envelopes(contract.served, schemas)
    complaints = envelopes.complaints(contract.operations)
    if complaints:
        listed = "\n".join(f"  {complaint}" for complaint in complaints)
        raise ConfigurationError(f"Not every answer can say an error; say in the overlay where its words go:\n{listed}")
    return envelopes


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that nothing answers."""
    del receive, send
    if scope["type"] == "http":
        raise NotFound


def _skeleton(contract: Contract) -> Document:
    """Return what Connexion needs of the served document: paths, operationIds and security.

    Bodies and their schemas are enforced here. Connexion would resolve every reference in them, once per start and
    once per reader of the document.
    """
    schemes = contract.served.get("components", {}).get("securitySchemes", {}) | _CLOSED | _KINDS
    paths: Document = {}
    for operation in contract.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = {
            "operationId": operation.id,
            "security": _security(operation, schemes),
            "responses": {"default": {"description": "See the served document."}},
        }
    skeleton: Document = {"openapi": contract.served["openapi"], "info": contract.served["info"]}
    skeleton |= {"servers": contract.served.get("servers", []), "paths": paths}
    return copy.deepcopy(skeleton | {"components": {"securitySchemes": schemes}})


_BEARER: Document = {"type": "http", "scheme": "bearer"}
_CLOSED: Document = {"closed": _BEARER | {"bearerFormat": "none that exists"}}
# A scheme of its own for each kind of token, called as no scheme of a document can be.
_KINDS: Document = {f"({kind})": _BEARER | {"bearerFormat": str(kind)} for kind in TokenKind}


def _security(operation: Operation, schemes: Document) -> list[dict[str, list[str]]]:
    """Return who may call: each bearer scheme as the kinds of token that the operation takes.

    An operation that a new document left open stays closed until the overlay says why it is.
    """
    if operation.is_open and not operation.is_public:
        _log.warning("security.closed", operation=operation.key)
        return [{"closed": []}]
    kinds = operation.token_kinds
    if kinds is None:
        return operation.security
    bearers = {name for name, scheme in schemes.items() if str(scheme.get("scheme")).lower() == "bearer"}
    expanded = [
        {f"({kind})" if name in bearers else name: scopes for name, scopes in one.items()}
        for one in operation.security
        for kind in kinds
    ]
    return [one for index, one in enumerate(expanded) if one not in expanded[:index]]


class _Resolver(Resolver):  # type: ignore[misc]  # Connexion is untyped
    """Finds handlers by METHOD and path."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        super().__init__()
        self._handlers = handlers

    def resolve(self, operation: AbstractOperation) -> Resolution:
        key = f"{operation.method.upper()} {operation.path}"
        return Resolution(self._handlers[key], operation.operation_id)
