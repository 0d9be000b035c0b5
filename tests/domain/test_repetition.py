import pytest

from domain.repetition import Repetition


class Clock:
    """Stands for the module `time`."""

    seconds = 5.0

    def monotonic(self) -> float:
        return self.seconds


def test_repetition_asks_for_a_line_at_once_and_then_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line stands for everything since the one before; keys have lines of their own."""
    clock, repetition = Clock(), Repetition()
    monkeypatch.setattr("domain.repetition.time", clock)
    first = [repetition.count("a") for _ in range(5)]
    other = repetition.count("b")
    clock.seconds += 59
    early = repetition.count("a")
    clock.seconds += 1

    assert first == [1, 0, 0, 0, 0]
    assert other == 1
    assert early == 0
    assert repetition.count("a") == 6
    assert repetition.count("a") == 0


def test_repetition_keeps_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers who find ever new keys get lines, and no memory."""
    monkeypatch.setattr("domain.repetition._MOST_KEYS", 10)
    repetition = Repetition()

    assert [repetition.count(str(number)) for number in range(1000)] == [1] * 1000
    assert len(repetition._said_at) <= 10
    assert not repetition._unsaid
