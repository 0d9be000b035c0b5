"""Schemathesis against the real server, and proof that it got everywhere.

`python -m tests.support.fuzz [--examples N] [--seed S] [--only REGEX]` starts the API with a demo organization and runs
every phase with all checks on: once with each operation's own kind of token, once without any. Then faults are injected
on purpose, and the run fails unless every documented status of every operation was answered at least once.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog

from domain.errors import Overloaded, RateLimited
from openapi.document import Operation
from openapi.operations import OPERATIONS
from openapi.schemas import Schemas
from tests.support import second_opinion
from tests.support.api import Api, running_api
from tests.support.contract import CONTRACT
from tests.support.elevenlabs_workspace import FakeWorkspace
from tests.support.fuzz_data import (
    AGENT,
    CONNECT,
    SMS_STATUS,
    TOKENS,
    Known,
    callbacks_by_token,
    known_body,
    known_parameters,
    meant,
    prepare,
    with_key,
)
from tests.support.samples import sample
from tests.support.vendors import FakeTwilio

ROOT = Path(__file__).resolve().parents[2]

Reached = Counter[tuple[str, int]]

# `make fuzz` also goes through all that is at a limit; who may call is asked before anything is looked at.
_DENIED_PHASES = "examples,fuzzing"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what Schemathesis said, whether it found fault, and which statuses were reached how often."""

    said: str
    failed: bool
    reached: Reached
    operations: tuple[Operation, ...]

    @property
    def summary(self) -> str:
        """The figures in a few lines: cases, statuses reached of those documented, failures."""
        documented = [status for one in self.operations for status in one.responses if status.isdigit()]
        found = "failures found" if self.failed else "no failures"
        return (
            f"{len(self.operations)} operations, {self.reached.total()} answers, "
            f"{len(documented) - len(self.unreached)} of {len(documented)} documented statuses reached, {found}"
        )

    @property
    def unreached(self) -> list[str]:
        """Documented statuses nobody ever saw."""
        return [
            f"{operation.key} {status}"
            for operation in self.operations
            for status in sorted(operation.responses)
            if status.isdigit() and not self.reached[operation.key, int(status)]
        ]


async def fuzz(data_dir: Path, *, examples: int, seed: int, only: str = "^/", denied: str = _DENIED_PHASES) -> Outcome:
    """Run it all on the paths that match `only`, in the phases `denied` without a token; a seed repeats it."""
    operations = tuple(one for one in CONTRACT.operations if re.search(only, one.path) and _is_written(one))
    async with contextlib.AsyncExitStack() as stack:
        twilio = await stack.enter_async_context(FakeTwilio())
        workspace = await stack.enter_async_context(FakeWorkspace())
        workspace.add_agent(AGENT)
        vendors = {"twilio_url": twilio.url, "elevenlabs_url": workspace.url}
        api = await stack.enter_async_context(running_api(data_dir, **vendors, **_PATIENT))
        known = await prepare(api, twilio)
        await with_key(api, workspace.api_key)
        chosen, seeded = _chosen(operations), ("--seed", str(seed))
        many = (*seeded, "--max-examples", str(examples))
        runs = [
            *await asyncio.gather(
                _schemathesis(api, known, *chosen, *many, *_without(_SPENDING)),
                _schemathesis(api, None, *chosen, *seeded, "--phases", denied, *_DENIED),
            )
        ]
        provoked = Reached()
        await with_key(api, workspace.api_key)
        await _provoke(api, known, operations, provoked)
        paths = {one.path for one in operations}
        runs += [
            await _schemathesis(api, known, *many, "--include-path", path, *_UNLINKED)
            for path in _SPENDING
            if path in paths
        ]
        reached = _count(api.data_dir / "tally.jsonl") + provoked
    return Outcome("\n".join(said for _, said in runs), any(code for code, _ in runs), reached, operations)


# Nobody is asked to wait while passwords are tried by the hundred.
_PATIENT = {
    "sign_in_attempts_per_account_and_address": 100_000,
    "sign_in_attempts_per_account": 100_000,
    "sign_in_attempts_per_address": 100_000,
    "requests_per_minute_per_address": 0,
    "requests_per_minute_per_caller": 0,
    "org_requests_per_minute": 0,
    "sms_timeout_seconds": 1,
}

# No link leads from one operation to itself.
_UNLINKED = ("--phases", "examples,coverage,fuzzing")

# These end tokens of the user who calls them, so they come last, the API keys first. What renews or revokes a key would
# otherwise be led to the first one by the list of keys.
_SPENDING = (
    "/api/user/api-keys/{keyId}/renew",
    "/api/user/api-keys/{keyId}",
    "/api/user/api-key/regenerate",
    "/api/auth/sign-out",
)

# Without a token everything is 401, good data and bad.
_DENIED = (
    *("--max-examples", "2"),
    *("--exclude-checks", "positive_data_acceptance,negative_data_rejection"),
)


def _is_written(operation: Operation) -> bool:
    return not OPERATIONS.operations[operation.key].is_stub


def _without(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(option for path in paths for option in ("--exclude-path", path))


def _chosen(operations: tuple[Operation, ...]) -> tuple[str, ...]:
    paths = "|".join(re.escape(path) for path in dict.fromkeys(one.path for one in operations))
    return ("--include-path-regex", f"^({paths})$")


def _tokens(api: Api) -> dict[str, str]:
    return {
        "FUZZ_JWT": api.superadmin_token,
        "FUZZ_API_KEY": api.demo.api_key.get_secret_value(),
        "FUZZ_TOOL_SECRET": api.demo.tool_secret.get_secret_value(),
    }


async def _schemathesis(api: Api, known: Known | None, *options: str) -> tuple[int, str]:
    """Run Schemathesis with each operation's own kind of token; without any when nothing is `known`."""
    tokens = _tokens(api) if known else dict.fromkeys(_tokens(api), "none")
    own = {
        "FUZZ_TALLY": str(api.data_dir / "tally.jsonl"),
        "FUZZ_KNOWN": known.dumps() if known else "",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    program = str(Path(sys.executable).parent / "schemathesis")
    running = await asyncio.create_subprocess_exec(
        *(program, "run", f"{api.url}/openapi.json", "--url", api.url),
        *("--generation-database", "none", "--no-color", *options),
        cwd=ROOT,
        env=os.environ | tokens | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await running.communicate()
    return running.returncode or 0, said.decode()


def _count(tally: Path) -> Reached:
    lines = (json.loads(line) for line in tally.read_text().splitlines())
    return Counter((f"{method} {path}", status) for method, path, status in lines)


# What no request can bring about by itself


async def _provoke(api: Api, known: Known, operations: tuple[Operation, ...], reached: Reached) -> None:
    """Inject what leads to the statuses that are left: faults, an overload, bodies too large or in other types."""
    hooks = {"response": [second_opinion.hear]}
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, event_hooks=hooks) as http:
        for operation in operations:
            request = _request(api, known, operation)
            for agent in (AGENT, "agent_nobody") if operation.path == CONNECT else ():
                target = request["url"].replace(AGENT, agent)
                _add(reached, operation, await http.post(target, json={}, headers=request["headers"]))
            for status, fault in _FAULTS.items():
                # Once after the token was believed, and once before.
                for spared in (1, 0) if str(status) in operation.responses else ():
                    with _failing(api, fault, spared):
                        _add(reached, operation, await http.send(http.build_request(**request)))
            for change in ({"headers": request["headers"] | {"Content-Type": "image/png"}}, {"content": _Endless()}):
                if operation.body_schema is not None or operation.definition.get("x-raw-body"):
                    _add(reached, operation, await http.send(http.build_request(**request | change)))
            if "404" in operation.responses and "{" in operation.path:
                _add(reached, operation, await http.send(http.build_request(**request | _nothing(known, operation))))
            for target in await callbacks_by_token(api) if operation.path == SMS_STATUS else ():
                for media_type in ("application/json", "image/png"):
                    report = {"batch_id": "01FUZZED", "type": "recipient_delivery_report_sms", "status": "Delivered"}
                    headers = {"Content-Type": media_type}
                    _add(reached, operation, await http.post(target, json=report, headers=headers))


def _nothing(known: Known, operation: Operation) -> dict[str, Any]:
    """Return where there is nothing: at ids that nobody has, or behind a link to a recording that was removed."""
    if operation.path.endswith("/audio"):
        return {"url": known.link_to_nothing, "params": None}
    return {"url": re.sub(r"\{[^{}]*Id\}|\{id\}", "0" * 24, operation.path).replace("{provider}", "twilio")}


_FAULTS: dict[int, Exception] = {
    429: RateLimited("injected", 7),
    500: RuntimeError("injected"),
    503: Overloaded("injected"),
}


def _add(reached: Reached, operation: Operation, response: httpx.Response) -> None:
    reached[operation.key, response.status_code] += 1


def _request(api: Api, known: Known, operation: Operation) -> dict[str, Any]:
    """Return a request that would be answered well if nothing went wrong."""
    required = {
        parameter["name"]: str(parameter.get("example", ""))
        for parameter in operation.parameters
        if parameter["in"] == "query" and (parameter.get("required") or parameter["name"] in known.query)
    }
    # Nothing is erased here: the fault comes first.
    path = re.sub(r"\{([^{}]*)\}", lambda name: known.path[meant(operation.path, name[1])], operation.path)
    body = json.dumps(known_body(known, _example(operation))).encode()
    headers = {"Content-Type": "application/json"} | _authorization(api, operation)
    if operation.path == SMS_STATUS:
        body, headers = b"MessageStatus=sent", {"Content-Type": "application/x-www-form-urlencoded"}
    return {
        "method": operation.method,
        "url": path,
        "params": known_parameters(known, operation.path, required),
        "headers": headers | known.signature(operation.path, body),
        "content": body,
    }


def _authorization(api: Api, operation: Operation) -> dict[str, str]:
    asks = any("bearerAuth" in one for one in operation.security)
    named = TOKENS[(operation.token_kinds or ["JWT"])[0]]
    return {"Authorization": f"Bearer {_tokens(api)[named]}"} if asks else {}


def _example(operation: Operation) -> Any:
    served = CONTRACT.served
    schema = dict(operation.body_schema or {})
    example = sample(served, schema) if schema else {}
    if operation.body_schema is not None and not Schemas(served).compile(schema, "request").is_valid(example):
        raise ValueError(f"{operation.key} has no example to send")
    return example


class _Endless(httpx.AsyncByteStream):
    """A body a little longer than anybody accepts."""

    async def __aiter__(self) -> Any:
        yield b'"'
        for _ in range(200):
            yield b"x" * (1 << 19)


@contextlib.contextmanager
def _failing(api: Api, fault: Exception, spared: int) -> Iterator[None]:
    """Make every unit of work of the database fail with `fault`, but for the first `spared` of them."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise fault

    database = api.relay.database
    kept = {name: getattr(database, name) for name in ("read", "write")}
    calls = 0

    def later(name: str) -> Any:
        async def work(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return await (kept[name](*arguments, **options) if calls <= spared else fail())

        return work

    for name in kept:
        object.__setattr__(database, name, later(name))
    try:
        yield
    finally:
        for name, method in kept.items():
            object.__setattr__(database, name, method)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fuzz the server with Schemathesis.")
    parser.add_argument("--examples", type=int, default=100, help="cases per operation and phase")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="^/", help="a regular expression of paths")
    parser.add_argument("--denied", default=_DENIED_PHASES, help="Schemathesis' phases of the run without a token")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory() as folder:
        options = {"examples": given.examples, "seed": seed, "only": given.only, "denied": given.denied}
        outcome = asyncio.run(fuzz(Path(folder) / "var", **options))
    say = sys.stdout.write
    say(f"{outcome.said}\n")
    for (operation, status), times in sorted(outcome.reached.items()):
        say(f"  {operation} {status}: {times}\n")
    for missing in outcome.unreached:
        say(f"never reached: {missing}\n")
    say(f"{outcome.summary}\n")
    chosen = f"--examples {given.examples} --seed {seed} --only '{given.only}' --denied {given.denied}"
    say(f"replay: python -m tests.support.fuzz {chosen}\n")
    sys.exit(1 if outcome.failed or outcome.unreached else 0)


if __name__ == "__main__":
    main()
