"""The broadcaster is killed again and again while listeners follow and calls arrive."""

import asyncio
import itertools
import random
from collections.abc import Iterator

import httpx

from clients.python.tether_relay_client import follow
from drills.ledger import balance
from drills.load import Callers
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, Process, Stage, staged
from persistence import outbox

_LISTENERS = 20
_CALLS_BETWEEN = 5
_EVENTS_PER_CALL = 4
_LISTENING_SECONDS = 300


async def killed_broadcaster(engine: str, repetitions: int) -> Outcome:
    """Kill it `repetitions` times; each listener resumes by itself and hears every event once, in order."""
    chance = random.Random(20260515)  # noqa: S311 - a drill, repeated as it was
    count, worst = repetitions * _CALLS_BETWEEN * _EVENTS_PER_CALL, 0.0
    async with staged(engine) as stage:
        api, broadcaster = await stage.api(), await stage.broadcaster()
        callers, names = Callers(stage, [api]), itertools.count(1)
        listeners = [asyncio.create_task(heard(stage, broadcaster, count)) for _ in range(_LISTENERS)]
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
            for _ in range(repetitions):
                pushing = asyncio.create_task(_push(callers, http, names))
                await asyncio.sleep(chance.uniform(0, 0.2))
                await broadcaster.kill()
                await pushing
                worst = max(worst, await broadcaster.start())
        every = await asyncio.gather(*listeners)
        there = await balance(stage, callers.seen)
        async with stage.relay() as relay:
            head = await relay.database.read(lambda: outbox.head(stage.organization_id))
    insist(head == count, f"{head} events, not {count}")
    for sequences in every:
        insist(sequences == list(range(1, head + 1)), "a listener did not hear every event once and in order")
    seen = callers.seen
    return Outcome(
        f"broadcaster killed, {_LISTENERS} listeners",
        engine,
        repetitions,
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        worst,
        f"{_LISTENERS} listeners heard {head} events each, once and in order",
    )


async def _push(callers: Callers, http: httpx.AsyncClient, names: Iterator[int]) -> None:
    for _ in range(_CALLS_BETWEEN):
        await callers.push(http, f"call-{next(names)}")


async def heard(stage: Stage, broadcaster: Process, count: int) -> list[int]:
    """Listen from the beginning until `count` events have come; return their sequences as they came."""
    url = broadcaster.url.replace("http", "ws") + "/v1"
    following = follow(url, token=stage.demo.api_key.get_secret_value(), since=0)
    sequences: list[int] = []
    async with asyncio.timeout(_LISTENING_SECONDS), following as events:
        async for event in events:
            sequences.append(event["seq"])
            if len(sequences) >= count:
                break
    return sequences
