"""The tests are tested: faults that would break the promise are planted, one at a time, and must be noticed."""

from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from domain.events import StoredEvent
from realtime.broadcaster import Below, Broadcaster, Feed, Listener
from tests.realtime.model import BroadcasterMachine, Client

QUICK = settings(
    max_examples=3000,  # a run ends with the first example that catches the fault
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


class CatchUpPassesTheHead(Broadcaster[Any]):
    """Replays whatever the outbox holds, also what the tail has not published yet, and goes live after it."""

    def supply(self, listener: Any, below: Below, events: Any) -> bytes:
        data = super().supply(listener, below, events)
        if listener.feed:
            listener.position = min(listener.position, listener.feed.head)
        return data


class UnboundedReads(BroadcasterMachine):
    make = CatchUpPassesTheHead

    def outbox(self, below: Below, limit: int) -> list[StoredEvent]:
        floor = max(below.after, self.pruned[below.organization_id])
        return self.log[below.organization_id][floor:]


class AttachesLater(Broadcaster[Any]):
    """Notices that nothing is left to replay, and goes live one step after: whatever comes in between is lost."""

    def advance(self, listener: Any) -> bytes | Below | None:
        feed = listener.feed
        has_looked = getattr(listener, "has_looked", False)
        if feed and not listener.is_live and listener.position >= feed.head and not has_looked:
            listener.has_looked = True
            return b""
        if feed and has_looked:
            listener.has_looked = False
            listener.position = max(listener.position, feed.head)
        return super().advance(listener)


class AwaitBeforeAttach(BroadcasterMachine):
    make = AttachesLater

    def step_client(self, where: int, client: Client) -> None:
        super().step_client(where, client)

    def connect(self, where: int, organization: str, wanted: Any) -> None:
        self.join_at(where, organization, wanted, self.broadcasters[where].head(organization))


class LowFloor(Broadcaster[Any]):
    """Believes that its ring begins one event earlier than it does."""

    def _feed(self, organization_id: str) -> Feed:
        return self._feeds.setdefault(organization_id, _LowFeed(organization_id, 0))


class _LowFeed(Feed):
    __slots__ = ()

    @property
    def floor(self) -> int:
        return max(0, super().floor - 1)


class RingFloorOffByOne(BroadcasterMachine):
    make = LowFloor


class RestartForgetsHeads(BroadcasterMachine):
    knows_heads = False


class LiveBelowItsPosition(Broadcaster[Any]):
    """Treats a listener that is ahead of the tail as live."""

    def _attach(self, feed: Feed, listener: Listener) -> None:
        listener.position = min(listener.position, feed.head)
        super()._attach(feed, listener)


@seed(2)  # from here the fault is caught in 0.2 s, from where its name leads in 37 s
class AheadIsLive(BroadcasterMachine):
    make = LiveBelowItsPosition


class CountsOnPromptness(Broadcaster[Any]):
    """Lets go of what rows are due as soon as something newer comes."""

    def _drop_stale(self, feed: Feed) -> None:
        super()._drop_stale(feed)
        feed.fresh.clear()


class DueIsForgotten(BroadcasterMachine):
    make = CountsOnPromptness


class ForgetsFilters(Broadcaster[Any]):
    """Replays from the outbox without looking at the filter."""

    def supply(self, listener: Any, below: Below, events: Any) -> bytes:
        wanted, listener.filter = listener.filter, type(listener.filter)()
        try:
            return super().supply(listener, below, events)
        finally:
            listener.filter = wanted


class UnfilteredReplay(BroadcasterMachine):
    make = ForgetsFilters


class KeepsQuiet(Broadcaster[Any]):
    """Skips what the outbox no longer holds without a word."""

    def supply(self, listener: Any, below: Below, events: Any) -> bytes:
        first = events[0].sequence if events else below.up_to + 1
        if listener.feed and not listener.is_live and listener.position == below.after:
            listener.position = first - 1
            below = Below(below.organization_id, first - 1, below.up_to)
        return super().supply(listener, below, events)


class SilentGap(BroadcasterMachine):
    make = KeepsQuiet


@pytest.mark.parametrize(
    "machine",
    [
        UnboundedReads,
        AwaitBeforeAttach,
        RingFloorOffByOne,
        RestartForgetsHeads,
        AheadIsLive,
        DueIsForgotten,
        UnfilteredReplay,
        SilentGap,
    ],
)
def test_planted_fault_is_caught(machine: type[BroadcasterMachine]) -> None:
    """The state machine fails on a broadcaster with this fault."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=QUICK)
