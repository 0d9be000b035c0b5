"""The layers between Connexion's own: what each does with a request before it hands it to the next one.

`openapi/serving/assembly.py` lists them in their order. What is not an operation passes them untouched. A layer that
only passes on is a plain function that returns what the next one does: a coroutine less for every request.
"""

import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.exceptions import HTTPException

from domain.errors import NotFound, RateLimited, Unauthenticated
from openapi.exchange import request_id
from openapi.serving.answers import ANSWERING, Answer, send_answer
from openapi.serving.bodies import Disconnected
from openapi.serving.operation import Counters, Enforced, Undocumented
from openapi.serving.problems import MethodNotAllowed, is_expected, unrouted
from openapi.serving.routing import Routes, operation_of

Scope = Any
Receive = Any
Send = Any
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Layer = Callable[[Any], App]

_log = structlog.get_logger()


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

    def __init__(self, app: Routes, limits: Counters) -> None:
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
            if ANSWERING in scope:
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


def noted(app: App) -> App:
    """Return `app` with a note in the scope once it has begun to answer."""

    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _noting(scope, send))

    return passed


def _noting(scope: Scope, send: Send) -> Send:
    async def send_noted(message: Any) -> None:
        scope[ANSWERING] = True
        await send(message)

    return send_noted


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
