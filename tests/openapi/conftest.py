import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import pytest_asyncio

from openapi import models, operations
from openapi.exchange import Request, Response
from tests.support import npm, second_opinion
from tests.support.api import serving
from tests.support.contract import CONTRACT
from tests.support.contracts import BODIES, Lab, build
from tests.support.samples import sample
from tests.support.tree import ROOT, Tree
from tests.support.waiting import PATIENCE_SECONDS

# Without npm there is no generator of TypeScript to try; `.ci/run` says so.
collect_ignore = [] if npm.EXECUTABLE else ["test_consumers.py"]

CREATED = {"success": True, "callId": "a" * 24, "contactId": "b" * 24, "conversationId": "c" * 24}


def _answers() -> dict[str, Response[Any]]:
    """Return an answer of every operation that answers in JSON: what its document gives as an example, or might."""
    schemas = CONTRACT.served["components"]["schemas"]
    answers: dict[str, Response[Any]] = {
        "post_calls_ingest": operations.PostCallsIngest201(models.CallsIngestCreatedResponse.model_validate(CREATED)),
        "post_calls_voice_ai_config": operations.PostCallsVoiceAiConfig200(
            models.CallsSimpleSuccessResponse(success=True, message="Configuration saved")
        ),
    }
    for operation in CONTRACT.operations:
        made = min(operations.OPERATIONS.operations[operation.key].responses, key=lambda each: each.status)
        (body,) = get_args(made.__orig_bases__[0])  # type: ignore[attr-defined]
        if operation.id not in answers and body is not bytes:
            answers[operation.id] = made(body.model_validate(sample(CONTRACT.served, schemas[body.__name__])))
    return answers


ANSWERS = _answers()
MAX_BODY = 512 * 1024
MAX_DOCUMENT = 256 * 1024


@dataclass(frozen=True)
class Relay:
    """The contract, enforced on a real socket in front of handlers that do nothing but answer."""

    http: httpx.AsyncClient
    lab: Lab
    host: str
    port: int

    async def raw(self, request: bytes) -> bytes:
        """Send bytes as they are; return everything that comes back until the server closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        finally:
            writer.close()


async def answer(request: Request[Lab], **arguments: Any) -> Response[Any]:
    request.relay.given.append({"request": request, **arguments})
    if request.relay.error is not None:
        raise request.relay.error
    return ANSWERS[request.operation]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Relay]:
    lab = Lab()
    handlers = {operation.key: answer for operation in CONTRACT.operations}
    bodies = replace(BODIES, body_bytes=MAX_BODY, document_bytes=MAX_DOCUMENT)
    app = build(CONTRACT, lab, handlers, operations.OPERATIONS, bodies=bodies)
    hooks = {"response": [second_opinion.hear]}
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, event_hooks=hooks) as http:
        yield Relay(http, lab, "127.0.0.1", int(url.rpartition(":")[2]))


@pytest.fixture
def relay(served: Relay) -> Relay:
    """The server all tests share, its laboratory as new."""
    served.lab.given.clear()
    served.lab.error = served.lab.authentication_error = None
    return served


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The type checker's cache of the code as it is, which one worker makes and each has a copy of."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mypy-of-all"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.is_dir():
            _check_types(shared)
    return Path(shutil.copytree(shared, base / "mypy"))


def _check_types(cache: Path) -> None:
    left = ROOT / ".mypy_cache"
    if left.is_dir():  # by `make check`
        shutil.copytree(left, cache)
    Tree(ROOT).types(cache)
