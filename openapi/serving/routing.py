"""Which operation a request is for.

Connexion's routing, with the search replaced: a path without parameters is one look-up, concrete paths win over
templated ones as OpenAPI asks, and a path that exists with other methods answers with all of them. What is not a path
of the document is passed on without an operation, as Connexion does.
"""

import functools
import re
from collections.abc import Awaitable, Mapping, MutableMapping
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.routing import RoutingMiddleware
from connexion.spec import Specification

from openapi.references import METHODS
from openapi.serving.problems import MethodNotAllowed

Scope = MutableMapping[str, Any]

_TEMPLATE = re.compile(r"\{([^{}]*)\}")


class _Path:
    """One path of the document: its operationIds by method, and its parameters by position."""

    def __init__(self, template: str, operations: Mapping[str, str]) -> None:
        self.operations = operations
        self.first = next(iter(operations.values()))
        self._template = template
        self._names = _TEMPLATE.findall(template)
        self.order = (template.count("/"), ["{" in segment for segment in template.split("/")])

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods it answers, HEAD with GET and OPTIONS always."""
        extra = {"HEAD"} if "GET" in self.operations else set()
        return tuple(sorted({*self.operations, *extra, "OPTIONS"}))

    @property
    def is_templated(self) -> bool:
        return bool(self._names)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled when it is first tried: hundreds of them would take a tenth of a second of every start.
        parts = [re.escape(part) for part in _TEMPLATE.split(self._template)[::2]]
        return re.compile("([^/]+)".join(parts) + r"\Z")

    def match(self, path: str) -> dict[str, str] | None:
        found = self._pattern.match(path)
        return dict(zip(self._names, found.groups(), strict=True)) if found else None


class Routes(RoutingMiddleware):  # type: ignore[misc]  # Connexion is untyped
    """Writes the operation and its path parameters into the scope, where Connexion's other layers look for them.

    Raises:
        MethodNotAllowed: when a path matches and its methods do not; the scope names one of its operations.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._concrete: dict[str, _Path] = {}
        self._templated: dict[int, list[_Path]] = {}
        self._base_path = ""

    def add_api(self, specification: Specification, base_path: str | None = None, **_: Any) -> None:
        """Add the paths of `specification`."""
        self._base_path = specification.base_path if base_path is None else base_path
        for template, item in specification["paths"].items():
            operations = {method.upper(): item[method]["operationId"] for method in item if method in METHODS}
            path = _Path(self._base_path + template, operations)
            if operations and path.is_templated:
                self._templated.setdefault(path.order[0], []).append(path)
            elif operations:
                self._concrete[self._base_path + template] = path
        for alike in self._templated.values():
            alike.sort(key=lambda path: path.order)

    def __call__(self, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        """Route one request and pass it on."""
        path = self.route(scope) if scope["type"] == "http" else None
        if path is None or "operation" in scope["state"]:
            return self._pass_on(scope, receive, send)
        if scope["method"] == "OPTIONS":
            return _offer(path.allowed, send)
        raise MethodNotAllowed(path.allowed)

    def route(self, scope: Scope) -> _Path | None:
        """Return the request's path, if the document has it, and write what was found into the scope."""
        found = self._find(_inner_path(scope))
        if found is None:
            return None
        path, parameters = found
        method = scope["method"]
        operation = path.operations.get("GET" if method == "HEAD" and "HEAD" not in path.operations else method)
        context = {"api_base_path": self._base_path, "operation_id": operation or path.first}
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = context
        scope["path_params"] = parameters
        state = scope.setdefault("state", {})
        if operation is not None:
            state["operation"] = operation
        return path

    def _pass_on(self, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        passed: Awaitable[None] = self.app(scope, receive, send)
        return passed

    def _find(self, text: str) -> tuple[_Path, dict[str, str]] | None:
        if text in self._concrete:
            return self._concrete[text], {}
        for path in self._templated.get(text.count("/"), ()):
            parameters = path.match(text)
            if parameters is not None:
                return path, parameters
        return None


async def _offer(methods: tuple[str, ...], send: Any) -> None:
    headers = [(b"allow", ", ".join(methods).encode("ascii"))]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _inner_path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(root) else path


def operation_of(scope: Mapping[str, Any]) -> str | None:
    """Return the operationId the request was routed to, if it got that far."""
    operation_id: str | None = scope.get("extensions", {}).get(ROUTING_CONTEXT, {}).get("operation_id")
    return operation_id
