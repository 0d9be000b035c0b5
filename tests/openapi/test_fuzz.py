"""Schemathesis in process, with handlers that do nothing but answer: all that can fail is the enforcement."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from openapi import document, operations
from tests.openapi.conftest import ANSWERS, answer
from tests.support import second_opinion
from tests.support.contracts import TOKENS, Lab, build

KINDS = {kind.value: token for token, kind in TOKENS.items()}
MODES = list(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    contract = document.load()
    handlers = {operation.key: answer for operation in contract.operations}
    app = build(contract, Lab(), handlers, operations.OPERATIONS)
    # The settings at the root are those of the run against the real server.
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=schemathesis.Config())


def insist(case: Any) -> int:
    definition = case.operation.definition.raw
    schemes = document.load().served["components"]["securitySchemes"]
    (scheme,) = definition["security"][0]
    token = KINDS[schemes[scheme]["bearerFormat"]]
    response = case.call(headers={"Authorization": f"Bearer {token}"})
    sent = response.request
    second_opinion.insist(
        sent.method,
        sent.path_url,
        {name.lower(): value for name, value in sent.headers.items()},
        sent.body if isinstance(sent.body, bytes) else (sent.body or "").encode(),
        response.status_code,
        {name.lower(): ", ".join(values) for name, values in response.headers.items()},
        response.content,
    )
    return int(response.status_code)


@pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
@pytest.mark.parametrize("operation_id", ANSWERS)
def test_enforcement_lets_in_what_is_valid_and_nothing_else(fuzzed: Any, operation_id: str, mode: Any) -> None:
    """Good data reaches the handler, bad data is answered as documented; openapi-core agrees about both."""
    operation = fuzzed.find_operation_by_id(operation_id)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def cases(case: Any) -> None:
        status = insist(case)
        assert status < 500
        assert mode is not schemathesis.GenerationMode.POSITIVE or status in (200, 201)

    cases()
