"""The recording store is down, full, slow, or answers garbage; nothing is stored, and it works again at once."""

import time

import httpx

from drills.ledger import balance
from drills.load import INGEST, Callers
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, staged
from tests.support.laboratory import Script, answer, falling_silent, repeating, saying
from tests.support.object_storage import (
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    Relay,
    bucket,
    plain_client,
    relay,
    s3_server,
)

_FULL = b"<Error><Code>QuotaExceeded</Code><Message>There is no room</Message></Error>"

# A store that says nothing, or says it a byte at a time, is waited for until its time limit: once, at the end.
_TROUBLES: dict[str, Script | None] = {
    "down": None,
    "full": saying(answer(_FULL, "507 Insufficient Storage", content_type="application/xml")),
    "garbage": saying(b"\x00\xff this is no answer \r\n\r\n"),
    "not a store": saying(answer(b"<html>Hello</html>", content_type="text/html")),
}


async def storage_trouble(engine: str, repetitions: int) -> Outcome:
    """Misbehave in every way, `repetitions` times over; then, after more than one round, fall silent."""
    with s3_server() as url, bucket(plain_client(url)) as name:
        async with (
            relay(url) as store,
            staged(
                engine,
                r2_endpoint_url=store.url,
                r2_bucket=name,
                r2_access_key_id=ACCESS_KEY_ID,
                r2_secret_access_key=SECRET_ACCESS_KEY,
                r2_region="us-east-1",
            ) as stage,
        ):
            callers, worst = Callers(stage, [await stage.api()]), 0.0
            slow = [falling_silent(), repeating(answer(), b" ", every=1)] if repetitions > 1 else []
            scripts = [*list(_TROUBLES.values()) * repetitions, *slow]
            async with httpx.AsyncClient(trust_env=False, timeout=READY_SECONDS) as http:
                for number, script in enumerate(scripts):
                    worst = max(worst, await _one(callers, http, store, script, f"call-{number}"))
            there = await balance(stage, callers.seen)
        objects = plain_client(url).list_objects_v2(Bucket=name).get("Contents", [])
        insist(len(objects) == len(callers.seen.calls), "an object was left behind")
    seen = callers.seen
    return Outcome(
        "storage down, full, garbage, slow, silent",
        engine,
        len(scripts),
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        worst,
        f"the slowest answer took {seen.slowest:.1f} s",
    )


async def _one(callers: Callers, http: httpx.AsyncClient, store: Relay, script: Script | None, name: str) -> float:
    """Push a call in trouble and again afterwards; return how long the second took."""
    if script is None:
        await store.stop()
    else:
        await store.misbehave(script)
    refused = await callers.send(http, INGEST, callers.api_key, callers.call(name))
    insist(refused is not None and refused.status_code in (400, 500, 503), f"in trouble, it answered {refused}")
    if script is None:
        await store.start()
    else:
        await store.misbehave(None)
    began = time.monotonic()
    await callers.push(http, name)
    return time.monotonic() - began
