"""The API process is killed, or told to stop, again and again while calls, notes and texts arrive."""

import asyncio
import random
import signal
import time
from collections import Counter

import httpx

from actions.text_caller import recover_stranded
from drills.ledger import balance, check_swept
from drills.load import INGEST, Callers, Seen
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, Process, Stage, staged, until
from persistence.models import Message
from tests.support.audio import mp3
from tests.support.faulty_http import FakeVendor, Fault, Received, Reply
from tests.support.vendors import FakeTwilio

_WORKERS = 12
_LONGEST_LIFE = 1.0


async def killed_api(engine: str, repetitions: int, *, replay_seconds: float = 600) -> Outcome:
    """Kill it `repetitions` times; whatever was acknowledged is there once, and no text left twice.

    With a `replay_seconds` that callers outlast, tool calls are done again: that is counted, never refused.
    """
    chance = random.Random(20260515)  # noqa: S311 - a drill, repeated as it was
    worst = 0.0
    async with FakeTwilio() as twilio, staged(engine, twilio=twilio, tool_replay_seconds=replay_seconds) as stage:
        api = await stage.api()
        callers = Callers(stage, [api])
        async with callers.at_work(_WORKERS) as seen:
            for _ in range(repetitions):
                await asyncio.sleep(chance.uniform(0.05, _LONGEST_LIFE))
                await api.kill()
                worst = max(worst, await api.start())
        stranded = await _recover(stage, len(twilio.messages), twilio)
        there = await balance(stage, seen, [message["body"] for message in twilio.messages])
        await check_swept(stage)
    return Outcome(
        "API killed",
        engine,
        repetitions,
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        worst,
        f"{stranded} texts were under way when it was killed: unknown, and not sent again",
    )


async def _recover(stage: Stage, sent: int, twilio: FakeTwilio) -> int:
    """Find what was under way when its sender died: it becomes unknown, and nothing is sent."""
    async with stage.relay() as relay:
        recovered = await recover_stranded(relay, older_than=-1)
        statuses = Counter(await relay.database.read(lambda: [row.status for row in Message.select(Message.status)]))
    insist(not statuses["queued"], f"{statuses['queued']} texts are still queued")
    insist(len(twilio.messages) == sent, "a text was sent after its sender had died")
    return max(recovered, statuses["unknown"])


async def stopped_api(engine: str, repetitions: int) -> Outcome:
    """Stop it with SIGTERM under load: it ends, and what it took on is finished; the longest end is told."""
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
    return took


async def stopped_in_flight(engine: str, repetitions: int) -> Outcome:
    """Stop it while it fetches recordings: who is inside is answered, who comes is refused, and it ends."""
    outcomes = [await _stopped_in_flight(engine) for _ in range(repetitions)]
    sums = [sum(column) for column in zip(*outcomes, strict=True)]
    requests, acknowledged, lost, doubled = (int(one) for one in sums[:4])
    worst = max(outcome[4] for outcome in outcomes)
    return Outcome("API stopped, requests under way", engine, repetitions, requests, acknowledged, lost, doubled, worst)


async def _stopped_in_flight(engine: str) -> tuple[float, ...]:
    async with _RecordingHost() as host, staged(engine) as stage:
        api = await stage.api(max_downloads_per_organization=_WORKERS)
        callers = Callers(stage, [api])
        host.behave(Fault.HANG_AFTER_READING, always=True)
        async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
            inside = [asyncio.create_task(_push(callers, http, f"{host.url}/{n}.mp3")) for n in range(_WORKERS)]
            await host.until_received(_WORKERS, seconds=READY_SECONDS)
            began = time.monotonic()
            api.send(signal.SIGTERM)
            await until(lambda: _refuses(api), "it refuses who comes")
            insist(not any(task.done() for task in inside), "somebody was answered without a recording")
            host.release()
            await asyncio.gather(*inside)
        insist(await api.ended() == 0, "it did not end well")
        took = time.monotonic() - began
        there = await balance(stage, callers.seen)
    return callers.seen.requests, callers.seen.acknowledged, there.lost, there.doubled, took


async def _push(callers: Callers, http: httpx.AsyncClient, recording: str) -> None:
    answer = await callers.send(http, INGEST, callers.api_key, callers.call(recording) | {"recording": recording})
    insist(answer is not None and answer.status_code == 201, f"it was told {answer}")
    callers.seen.calls[recording] = answer.json()["callId"] if answer is not None else ""


class _RecordingHost(FakeVendor):
    """A call system's recordings."""

    def answer(self, _: Received) -> Reply:
        return Reply(200, body=mp3(60), headers={"Content-Type": "audio/mpeg"})


async def _refuses(api: Process) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
