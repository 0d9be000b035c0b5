"""The clock is set back an hour while the API runs."""

import itertools
from pathlib import Path

import httpx

from actions.administer import issue_token
from drills.ledger import balance
from drills.load import TOOLS, Callers, Seen
from drills.outcome import Outcome, insist
from drills.stage import READY_SECONDS, Stage, staged, until

_HOUR = 3600
_CLOCK = Path(__file__).parent / "clock"
_NOTES = 5


async def clock_set_back(engine: str, repetitions: int) -> Outcome:
    """Ids and sequences still ascend; a token that has expired stays refused, one that is good stays good."""
    async with staged(engine) as stage:
        clock = stage.folder / "clock"
        clock.write_text("0")
        api = await stage.api(PYTHONPATH=_CLOCK, CLOCK_FILE=clock)
        callers = Callers(stage, [api])
        async with stage.relay() as relay:
            short = (await issue_token(relay, stage.demo.superadmin_email, 2)).get_secret_value()
        ids: list[str] = []
        async with httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=READY_SECONDS) as http:
            await until(lambda: _refused(http, short), "the token has expired")
            for number in range(repetitions + 1):
                clock.write_text(str(-_HOUR * number))
                ids += [await _note(http, stage, callers.seen, f"note {number}-{index}") for index in range(_NOTES)]
                insist(await _refused(http, short), "a token that had expired was believed again")
                insist(not await _refused(http, stage.superadmin_token), "a good token was refused")
        insist(all(one < other for one, other in itertools.pairwise(ids)), "ids do not ascend")
        insist(await api.answers("/readyz"), "it is not ready any more")
        there = await balance(stage, callers.seen)
    seen = callers.seen
    return Outcome(
        "clock set back an hour", engine, repetitions, seen.requests, seen.acknowledged, there.lost, there.doubled, 0
    )


async def _note(http: httpx.AsyncClient, stage: Stage, seen: Seen, note: str) -> str:
    seen.requests += 1
    answer = await http.post(
        f"{TOOLS}/create-note",
        json={"phone_number": stage.demo.contact_phone, "note": note},
        headers={"Authorization": f"Bearer {stage.demo.tool_secret.get_secret_value()}"},
    )
    seen.notes[note] = answer.json()["note_id"]
    return seen.notes[note]


async def _refused(http: httpx.AsyncClient, token: str) -> bool:
    answer = await http.get("/api/calls/voice-ai/config", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code == 401
