"""One trivial operation behind three frameworks: authenticate, parse, validate, answer; no database."""

import secrets
from typing import Any

import orjson
from fastapi import Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app import body_limits, rules_of
from bench.questions import CREATE_NOTE
from config import Settings
from domain.errors import Unauthenticated
from domain.principals import Principal, TokenKind
from handlers.observation import Observation
from logs import configure_logging
from openapi import document, exchange, models
from openapi.operations import OPERATIONS, PostWebhookElevenlabsToolsCreateNote200
from openapi.serving import assembly

TOKEN = "f" * 64
NOTE_ID = "64d2f9c5e8a1d4e001a0b1c2"
BODIES = body_limits(rules_of(Settings(_env_file=None)))


def ours() -> Any:
    """The contract enforced, with a handler that does nothing."""

    async def note(request: exchange.Request[Any], **_: Any) -> PostWebhookElevenlabsToolsCreateNote200:
        del request
        answer = models.ElevenLabsCreateNoteResponse(success=True, note_id=NOTE_ID)
        return PostWebhookElevenlabsToolsCreateNote200(answer)

    async def authenticate(kind: TokenKind, token: str) -> Principal:
        if not secrets.compare_digest(token, TOKEN):
            raise Unauthenticated
        return Principal(kind, "org")

    contract = document.load()
    handlers = {operation.key: note for operation in contract.operations}
    return assembly.build(contract, None, authenticate, bindings=OPERATIONS, handlers=handlers, bodies=BODIES)


def ours_observed() -> Any:
    """The same inside what every request of ours gets: a request id, metrics, and a log line that is not written."""
    configure_logging("warning", "json")
    return Observation(ours(), CollectorRegistry())


class Note(BaseModel):
    model_config = {"extra": "allow"}

    phone_number: str
    note: str
    called_id: str | None = None
    called_number: str | None = None


class Saved(BaseModel):
    success: bool
    note_id: str | None = None
    error: str | None = None


def fastapi() -> Any:
    """FastAPI as its tutorial shows it: models both ways, a bearer dependency."""
    app = FastAPI()
    bearer = HTTPBearer()

    async def caller(given: HTTPAuthorizationCredentials = Depends(bearer)) -> str:  # noqa: B008
        if not secrets.compare_digest(given.credentials, TOKEN):
            raise Unauthenticated
        return "org"

    @app.post(CREATE_NOTE, response_model=Saved, response_model_exclude_unset=True)
    async def note(body: Note, organization: str = Depends(caller)) -> Saved:  # noqa: ARG001
        return Saved(success=True, note_id=NOTE_ID)

    return app


def starlette() -> Any:
    """Bare Starlette with orjson: the token compared, the body parsed, nothing validated."""

    async def note(request: Request) -> Response:
        if not secrets.compare_digest(request.headers["authorization"][7:], TOKEN):
            return Response(status_code=401)
        orjson.loads(await request.body())
        return Response(orjson.dumps({"success": True, "note_id": NOTE_ID}), media_type="application/json")

    return Starlette(routes=[Route(CREATE_NOTE, note, methods=["POST"])])
