"""Two API processes and two broadcasters on one database, told of the same calls at the same moment."""

import asyncio

import httpx

from drills.killed_broadcaster import heard
from drills.ledger import balance
from drills.load import Callers, Seen
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, staged
from persistence import outbox

_PUSHERS = 4


async def several_processes(engine: str, repetitions: int) -> Outcome:
    """Push `repetitions` calls, each several times at once to both; one call each, and each event once per listener."""
    async with staged(engine) as stage:
        apis = list(await asyncio.gather(stage.api(), stage.api()))
        broadcasters = await asyncio.gather(stage.broadcaster(), stage.broadcaster())
        listeners = [asyncio.create_task(heard(stage, one, 4 * repetitions)) for one in broadcasters]
        callers = [Callers(stage, apis if index % 2 else apis[::-1], seed=index) for index in range(_PUSHERS)]
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
            for number in range(repetitions):
                await asyncio.gather(*(one.push(http, f"call-{number}") for one in callers))
        seen = _agreed([one.seen for one in callers])
        there = await balance(stage, seen)
        every = await asyncio.gather(*listeners)
        async with stage.relay() as relay:
            head = await relay.database.read(lambda: outbox.head(stage.organization_id))
    insist(head == 4 * repetitions, f"{head} events for {repetitions} calls")
    for sequences in every:
        insist(sequences == list(range(1, head + 1)), "a listener did not hear every event once and in order")
    return Outcome(
        "two of each on one database",
        engine,
        repetitions,
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        0,
    )


def _agreed(all_seen: list[Seen]) -> Seen:
    first = all_seen[0]
    insist(all(seen.calls == first.calls for seen in all_seen), "callers were told different ids of one call")
    return Seen(requests=sum(seen.requests for seen in all_seen), calls=first.calls)
