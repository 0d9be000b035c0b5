"""The API process is killed, or told to stop, again and again while calls, notes and texts arrive."""

import asyncio
import random
import signal
import time

from drills.ledger import balance, check_swept
from drills.load import Callers, Seen
from drills.outcome import Outcome, insist
from drills.stage import Process, staged, until
from tests.support.vendors import FakeTwilio

_WORKERS = 12
_LONGEST_LIFE = 1.0
_PATIENCE_SECONDS = 10


async def killed_api(engine: str, repetitions: int) -> Outcome:
    """Kill it `repetitions` times; whatever was acknowledged is there once, and no text left twice."""
    chance = random.Random(20260515)  # noqa: S311 - a drill, repeated as it was
    worst = 0.0
    async with FakeTwilio() as twilio, staged(engine, twilio=twilio) as stage:
        api = await stage.api()
        callers = Callers(stage, [api])
        async with callers.at_work(_WORKERS) as seen:
            for _ in range(repetitions):
                await asyncio.sleep(chance.uniform(0.05, _LONGEST_LIFE))
                await api.kill()
                worst = max(worst, await api.start())
        there = await balance(stage, seen, [message["body"] for message in twilio.messages])
        await check_swept(stage)
    return Outcome(
        "API killed", engine, repetitions, seen.requests, seen.acknowledged, there.lost, there.doubled, worst
    )


async def stopped_api(engine: str, repetitions: int) -> Outcome:
    """Stop it with SIGTERM under load: it ends within ten seconds, and what it took on is finished."""
    worst = 0.0
    async with FakeTwilio() as twilio, staged(engine, twilio=twilio) as stage:
        api = await stage.api()
        callers = Callers(stage, [api])
        async with callers.at_work(_WORKERS) as seen:
            for _ in range(repetitions):
                await _answered(seen, len(seen.statuses) + 3 * _WORKERS)
                worst = max(worst, await _stop(api))
                await api.start()
        there = await balance(stage, seen, [message["body"] for message in twilio.messages])
        await check_swept(stage)
    return Outcome(
        "API stopped", engine, repetitions, seen.requests, seen.acknowledged, there.lost, there.doubled, worst
    )


async def _answered(seen: Seen, count: int) -> None:
    async def enough() -> bool:
        return len(seen.statuses) >= count

    await until(enough, f"{count} requests are answered")


async def _stop(api: Process) -> float:
    began = time.monotonic()
    api.send(signal.SIGTERM)
    status = await api.ended()
    took = time.monotonic() - began
    insist(status == 0, f"it ended with {status}")
    insist(took < _PATIENCE_SECONDS, f"it took {took:.1f} s to end")
    return took
