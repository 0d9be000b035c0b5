"""What a running API does by itself: it tells of heartbeats that ended and deletes what was kept for a day."""

import asyncio
import contextlib

from actions.availability import ONLINE_SECONDS
from commands.serving import _HOUSEKEEPING_SECONDS, _keep_house
from domain.calls import CALL_CONTEXT_SECONDS
from persistence.models import CallContext
from tests.handlers.test_availability import lapse, say, told
from tests.handlers.test_personalization import age, connect
from tests.support.api import Api
from tests.support.waiting import until


async def test_heartbeats_end_and_contexts_of_yesterday_go(api: Api) -> None:
    """In the first round; listeners hear of the end of a heartbeat in under a minute."""
    await say(api, api.superadmin_token, isAvailable=True)
    await connect(api)
    await lapse(api)
    await age(api, CALL_CONTEXT_SECONDS + 1)

    async def is_done() -> bool:
        contexts = await api.read(lambda: CallContext.select().count())
        return contexts == 0 and len(await told(api)) > 1

    house = asyncio.create_task(_keep_house(api.relay))
    try:
        await until(is_done)
    finally:
        house.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await house

    assert (await told(api))[-1] == (False, True, 0, 0)
    assert ONLINE_SECONDS + _HOUSEKEEPING_SECONDS < 60
