"""Waiting for what may be microseconds away: when it is tried, and when not."""

import socket
from collections.abc import Iterator

import pytest

from spawny.kernel import spin
from spawny.kernel.spin import MOST_SKIPPED, Spin

Ends = tuple[socket.socket, Spin]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The other end, and this one's."""
    there, here = socket.socketpair()
    with there, here:
        yield there, Spin(here)


def skipped(ends: Ends) -> int:
    """How many waits do not even look, before one that does."""
    there, waits = ends
    there.send(b"?")
    count = 0
    while waits.receive() is None:
        count += 1
    return count


def test_what_is_there_is_received(ends: Ends) -> None:
    """Any number of times; the end of the stream is nothing but that."""
    there, waits = ends
    for _ in range(10):
        there.send(b"data")
        assert waits.receive() == b"data"
    there.close()
    assert waits.receive() == b""


def test_a_moment_that_was_lost_costs_the_next(ends: Ends) -> None:
    """Then the next two, and so on, up to a limit; as long as none is won."""
    _, waits = ends
    found = []
    for _ in range(10):
        assert waits.receive() is None
        found.append(waits._left)
        waits._left = 0
    assert found == [min(2**power, MOST_SKIPPED) for power in range(10)]


def test_what_is_won_counts_anew(ends: Ends) -> None:
    """After it, one that is lost costs but one again."""
    _, waits = ends
    for _ in range(3):
        assert waits.receive() is None
        waits._left = 0
    assert waits.receive() is None
    assert skipped(ends) == 8
    assert waits.receive() is None
    assert skipped(ends) == 1


def test_what_comes_late_is_received_and_lost(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had the core meanwhile, had it for too long."""
    there, waits = ends
    monkeypatch.setattr(spin, "SPIN_SECONDS", 0)
    monkeypatch.setattr(spin, "_yield_core", lambda: there.send(b"late"))
    assert waits.receive() == b"late"
    assert skipped(ends) == 1


def test_a_reason_to_stop_is_no_loss(ends: Ends) -> None:
    """It ends the wait, and says nothing of the next one."""
    _, waits = ends
    assert waits.receive([object()]) is None
    assert skipped(ends) == 0
