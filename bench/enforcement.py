"""What enforcing the contract costs: one request in process, the same trivial handler behind four servers.

Run: `python -m bench.enforcement`. Prints microseconds per request, the best of several rounds.
"""

import asyncio
import json
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import connexion

from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from app import body_limits, rules_of
from config import Settings
from domain.principals import Principal, TokenKind
from openapi import document, models
from openapi.exchange import Request
from openapi.operations import OPERATIONS, PostWebhookElevenlabsToolsCreateNote200
from openapi.serving import assembly

PATH = "/api/webhook/elevenlabs/tools/create-note"
BODY = json.dumps({"phone_number": "+14165550100", "note": "Caller asked about availability."}).encode()
NOTE_ID = "64d2f9c5e8a1d4e001a0b1c2"
BODIES = body_limits(rules_of(Settings(_env_file=None)))
ROUNDS, REQUESTS = 7, 2000

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


async def _handler(request: Request[Any], **_: Any) -> PostWebhookElevenlabsToolsCreateNote200:
    del request
    return PostWebhookElevenlabsToolsCreateNote200(models.ElevenLabsCreateNoteResponse(success=True, note_id=NOTE_ID))


async def _authenticate(kind: TokenKind, token: str) -> Principal:
    del token
    return Principal(kind, "org")


def ours() -> Asgi:
    contract = document.load()
    handlers = {operation.key: _handler for operation in contract.operations}
    app: Asgi = assembly.build(contract, None, _authenticate, bindings=OPERATIONS, handlers=handlers, bodies=BODIES)
    return app


def bare_starlette() -> Asgi:
    async def note(request: StarletteRequest) -> JSONResponse:
        await request.json()
        return JSONResponse({"success": True, "note_id": NOTE_ID})

    return Starlette(routes=[Route(PATH, note, methods=["POST"])])


def connexion_default(*, validate_responses: bool) -> Asgi:
    served = document.load().served
    paths = {PATH: served["paths"][PATH]}
    specification = {**served, "paths": paths}
    specification["components"]["securitySchemes"]["bearerAuth"]["x-bearerInfoFunc"] = "bench.enforcement.believe"

    async def note(body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        del body
        return {"success": True, "note_id": NOTE_ID}, 200

    app = connexion.AsyncApp(__name__)
    app.add_api(specification, validate_responses=validate_responses, resolver=connexion.Resolver(lambda _: note))
    return app  # type: ignore[no-any-return]


def believe(token: str) -> dict[str, Any]:
    return {"sub": token}


async def _once(app: Asgi) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": PATH, "raw_path": PATH.encode(), "root_path": "", "query_string": b"", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2212), "state": {},
        "headers": [
            (b"host", b"x"), (b"authorization", b"Bearer secret"), (b"content-type", b"application/json"),
            (b"content-length", str(len(BODY)).encode()),
        ],
    }  # fmt: skip
    await app(scope, receive, send)
    return status


async def _measure(app: Asgi) -> float:
    if await _once(app) != 200:
        raise RuntimeError("the server does not answer 200")
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(REQUESTS):
            await _once(app)
        best = min(best, (time.perf_counter() - started) / REQUESTS)
    return best * 1e6


def main() -> None:
    servers = {
        "ours": ours(),
        "bare Starlette": bare_starlette(),
        "Connexion": connexion_default(validate_responses=False),
        "Connexion, responses validated too": connexion_default(validate_responses=True),
    }
    for name, app in servers.items():
        print(f"{name:36} {asyncio.run(_measure(app)):8.1f} µs")


if __name__ == "__main__":
    main()
