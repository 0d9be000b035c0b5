"""The paths this server has for itself, beside the contract's: health, metrics, documents, pages."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


def fixed(content_type: str, body: bytes) -> Endpoint:
    """Return a page that is always the same."""

    async def page(_: Request) -> Response:
        return Response(body, media_type=content_type)

    return page


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there is nothing of the kind."""
    await JSONResponse({"success": False, "error": "Not found"}, 404)(scope, receive, send)


class OwnPaths:
    """Answers GET and HEAD on its own paths and hands everything else on; one look-up a request."""

    def __init__(self, app: ASGIApp, pages: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        page = self._pages.get(scope.get("path", ""))
        if page is None or scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._serve(page, scope, receive, send)

    async def _serve(self, page: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._answer(page, Request(scope, receive)))(scope, receive, send)

    async def _answer(self, page: Endpoint, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            refusal = {"success": False, "error": "Method not allowed"}
            return JSONResponse(refusal, 405, {"Allow": "GET, HEAD"})
        return await page(request)
