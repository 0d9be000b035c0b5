"""Schemathesis in process, with handlers that do nothing but answer: all that can fail is the enforcement."""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from openapi import operations
from tests.openapi.conftest import ANSWERS, answer
from tests.support import second_opinion
from tests.support.contract import CONTRACT
from tests.support.contracts import TOKENS, Lab, build

KINDS = {kind.value: token for token, kind in TOKENS.items()}
# Whose body is read by its handler is enforced there.
ENFORCED = [one.id for one in CONTRACT.operations if one.id in ANSWERS and not one.definition.get("x-raw-body")]
# `make fuzz` goes on for longer.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
MODES = list(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    handlers = {operation.key: answer for operation in CONTRACT.operations}
    app = build(CONTRACT, Lab(), handlers, operations.OPERATIONS)
    # The settings at the root are those of the run against the real server. NUL has tests of its own.
    config = schemathesis.Config.from_dict({"generation": {"allow-x00": False}})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def insist(case: Any) -> int:
    response = case.call(headers=authorization(case.operation.definition.raw))
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


def authorization(definition: dict[str, Any]) -> dict[str, str]:
    """Return the token an operation asks for, if it asks for one."""
    asks = any("bearerAuth" in one for one in definition.get("security", []))
    kind = definition.get("x-token-kinds", ["JWT"])[0]
    return {"Authorization": f"Bearer {KINDS[kind]}"} if asks else {}


@pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
@pytest.mark.parametrize("operation_id", ENFORCED)
def test_enforcement_lets_in_what_is_valid_and_nothing_else(fuzzed: Any, operation_id: str, mode: Any) -> None:
    """Good data reaches the handler, bad data is answered as documented; openapi-core agrees about both."""
    operation = fuzzed.find_operation_by_id(operation_id)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def cases(case: Any) -> None:
        status = insist(case)
        assert status < 500
        assert mode is not schemathesis.GenerationMode.POSITIVE or status in (200, 201)

    cases()
