"""The tests are tested: faults that would break the promise are planted, one at a time, and must be noticed."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from domain.events import StoredEvent
from domain.gaps import Reason
from realtime.broadcaster import Below, Broadcaster, Feed, Listener
from tests.realtime.model import BroadcasterMachine, Client

# Some seeds do not lead to a rare fault for long, others do at once, and which do changes with the code under test.
SEEDS = range(1, 11)
QUICK = settings(
    max_examples=300,  # from each seed; a run ends with the first example that catches the fault
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[Phase.generate],
)


class CatchUpPassesTheHead(Broadcaster[Any]):
    """Replays whatever the outbox holds, also what the tail has not published yet, and goes live after it."""

    def supply(self, listener: Any, below: Below, events: Any, reason: Reason = Reason.PRUNED) -> bytes:
        data = super().supply(listener, below, events, reason)
        if listener.feed:
            listener.position = min(listener.position, listener.feed.head)
        return data


class SoundLogs(BroadcasterMachine):
    """Nothing but what happens on an ordinary day, so that faults in that are found sooner."""

    logs_break = False


class UnboundedReads(SoundLogs):
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


class AwaitBeforeAttach(SoundLogs):
    make = AttachesLater

    def step_client(self, where: int, client: Client) -> None:
        super().step_client(where, client)

    def connect(self, where: int, organization: str, wanted: Any) -> None:
        broadcaster = self.broadcasters[where]
        self.join_at(where, organization, wanted, broadcaster.head(organization), broadcaster.epoch(organization))


class LowFloor(Broadcaster[Any]):
    """Believes that its ring begins one event earlier than it does."""

    def _feed(self, organization_id: str) -> Feed:
        return self._feeds.setdefault(organization_id, _LowFeed(organization_id, self._bounds))


class _LowFeed(Feed):
    __slots__ = ()

    @property
    def floor(self) -> int:
        return max(0, super().floor - 1)


class RingFloorOffByOne(SoundLogs):
    make = LowFloor


class RestartForgetsHeads(SoundLogs):
    knows_heads = False


class LiveBelowItsPosition(Broadcaster[Any]):
    """Treats a listener that is ahead of the tail as live."""

    def _attach(self, feed: Feed, listener: Listener) -> None:
        listener.position = min(listener.position, feed.head)
        super()._attach(feed, listener)


class AheadIsLive(SoundLogs):
    make = LiveBelowItsPosition


class CountsOnPromptness(Broadcaster[Any]):
    """Lets go of what rows are due as soon as something newer comes."""

    def _drop_stale(self, feed: Feed) -> None:
        super()._drop_stale(feed)
        feed.fresh.clear()


class DueIsForgotten(SoundLogs):
    make = CountsOnPromptness


class ForgetsFilters(Broadcaster[Any]):
    """Replays from the outbox without looking at the filter."""

    def supply(self, listener: Any, below: Below, events: Any, reason: Reason = Reason.PRUNED) -> bytes:
        wanted, listener.filter = listener.filter, type(listener.filter)()
        try:
            return super().supply(listener, below, events, reason)
        finally:
            listener.filter = wanted


class UnfilteredReplay(SoundLogs):
    make = ForgetsFilters


class KeepsQuiet(Broadcaster[Any]):
    """Skips what the outbox no longer holds without a word."""

    def supply(self, listener: Any, below: Below, events: Any, reason: Reason = Reason.PRUNED) -> bytes:
        first = events[0].sequence if events else below.up_to + 1
        if listener.feed and not listener.is_live and listener.position == below.after:
            listener.position = first - 1
            below = replace(below, after=first - 1)
        return super().supply(listener, below, events, reason)


class SilentGap(SoundLogs):
    make = KeepsQuiet


class OverlooksHoles(Broadcaster[Any]):
    """Looks at the first event of a page only."""

    def supply(self, listener: Any, below: Below, events: Any, reason: Reason = Reason.PRUNED) -> bytes:
        data, place = b"", below
        for event in events:
            data += super().supply(listener, place, [event], reason)
            place = replace(place, after=event.sequence)
            if listener.feed and (following := [one for one in events if one.sequence > event.sequence]):
                place = replace(place, after=following[0].sequence - 1)
                listener.position = place.after
        return data if events else super().supply(listener, below, events, reason)


class SilentHole(BroadcasterMachine):
    make = OverlooksHoles


class KeepsTheRing(Broadcaster[Any]):
    """Keeps in memory what it knows of a log that was replaced."""

    def restart(self, standings: Any) -> dict[str, bool]:
        rings = {name: list(feed.ring) for name, feed in self._feeds.items()}
        restarted = super().restart(standings)
        for name, ring in rings.items():
            kept = [held for held in ring if held.sequence <= self._feeds[name].head]
            self._feeds[name].ring.append(kept if kept and kept[-1].sequence == self._feeds[name].head else [])
        return restarted


class RolledBackFrames(BroadcasterMachine):
    make = KeepsTheRing

    def check(self, where: int, client: Client, up_to: int) -> None:
        super().check(where, client, up_to)
        # What is in memory is in the log, under the time at which it was committed there.
        for name, feed in self.broadcasters[where]._feeds.items():
            if self.noticed[where] == self.times:
                times = {event.sequence: event.at for event in self.log[name]}
                assert all(held.name is None or times.get(held.sequence) == held.at for held in feed.ring)


class UsesOldReads(Broadcaster[Any]):
    """Uses what was read of a log before it was replaced."""

    def supply(self, listener: Any, below: Below, events: Any, reason: Reason = Reason.PRUNED) -> bytes:
        if listener.feed:
            below = replace(below, epoch=listener.feed.epoch)
            if not listener.is_live:
                listener.position = below.after
        return super().supply(listener, below, events, reason)


class LateReads(BroadcasterMachine):
    make = UsesOldReads


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
        SilentHole,
        RolledBackFrames,
        LateReads,
    ],
)
def test_planted_fault_is_caught(machine: type[BroadcasterMachine]) -> None:
    """The state machine fails on a broadcaster with this fault, from one of a few fixed seeds."""
    assert any(fails_from(number, machine) for number in SEEDS), f"seeds {SEEDS[0]} to {SEEDS[-1]} do not catch it"


def fails_from(number: int, machine: type[BroadcasterMachine]) -> bool:
    """Run the machine from the seed `number`; tell whether it failed."""
    try:
        run_state_machine_as_test(seed(number)(machine), settings=QUICK)
    except AssertionError:
        print(f"seed {number} catches {machine.__name__}")  # noqa: T201
        return True
    return False
