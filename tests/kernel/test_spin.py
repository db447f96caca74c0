"""Waiting for what may be microseconds away: when it is tried, and when not."""

import socket
from collections.abc import Iterator

import pytest

from spawny.kernel import spin
from spawny.kernel.spin import MOST_SKIPPED, SPIN_SECONDS, Spin


class Waits:
    """One end of a connection. Time passes only while it has given the core away."""

    def __init__(self) -> None:
        self.there, self.here = socket.socketpair()
        self.spin = Spin(self.here)
        self.now = 0.0
        self.turn_seconds = SPIN_SECONDS / 10
        self.turns = 0
        self.comes = b""  # in the next turn of the other end

    def others_run(self) -> None:
        self.turns += 1
        self.now += self.turn_seconds
        if self.comes:
            self.there.send(self.comes)
            self.comes = b""

    def lose(self) -> None:
        """Nothing comes, as soon as it looks."""
        while not self.spin.receive():
            if self.turns:
                self.turns = 0
                return

    def skips(self) -> int:
        """How many waits do not even look, before one that does."""
        count = 0
        self.comes = b"?"
        while self.spin.receive() is None:
            count += 1
        return count


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    waits = Waits()
    monkeypatch.setattr(spin, "monotonic", lambda: waits.now)
    monkeypatch.setattr(spin, "_yield_core", waits.others_run)
    with waits.there, waits.here:
        yield waits


def test_what_comes_is_received(waits: Waits) -> None:
    """Any number of times; the end of the stream is nothing but that."""
    for _ in range(10):
        waits.comes = b"data"
        assert waits.spin.receive() == b"data"
    waits.there.send(b"was there")
    assert waits.spin.receive() == b"was there"
    waits.there.shutdown(socket.SHUT_WR)
    assert waits.spin.receive() == b""


def test_a_moment_without_data_is_bounded(waits: Waits) -> None:
    """By time, not by looks."""
    assert waits.spin.receive() is None
    assert waits.turns == 11


def test_a_moment_that_was_lost_costs_the_next(waits: Waits) -> None:
    """Then the next two, and so on, up to a limit; as long as none is won."""
    for power in range(10):
        waits.lose()
        for _ in range(min(2**power, MOST_SKIPPED)):
            assert waits.spin.receive() is None
            assert not waits.turns


def test_what_is_won_counts_anew(waits: Waits) -> None:
    """After it, one that is lost costs but one again."""
    for _ in range(4):
        waits.lose()
    assert waits.skips() == 8
    waits.lose()
    assert waits.skips() == 1


def test_what_comes_late_is_received_and_lost(waits: Waits) -> None:
    """Whoever had the core meanwhile, had it for too long."""
    waits.turn_seconds = SPIN_SECONDS * 2
    waits.comes = b"late"
    assert waits.spin.receive() == b"late"
    waits.turn_seconds = 0
    assert waits.skips() == 1


def test_a_reason_to_stop_is_no_loss(waits: Waits) -> None:
    """It ends the wait, and says nothing of the next one."""
    assert waits.spin.receive([object()]) is None
    assert waits.skips() == 0
