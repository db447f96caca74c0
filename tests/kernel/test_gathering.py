"""Answers that are sent together: which wait, and until when at the latest."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from spawny.kernel import wire
from spawny.kernel.gathering import MOMENT_SECONDS, MOST_BYTES, ROW, Gathering
from spawny.kernel.sessions import Connection

NOW = 1000.0
REPLY = b"answer"


class Row:
    """A client that has sent many requests at once, and what it has been answered."""

    def __init__(self) -> None:
        self.there, here = socket.socketpair()
        self.there.setblocking(False)
        self.connection = Connection(here, 1, lambda _: None)
        self.connection.frames.append("a request")
        self.gathering = Gathering()
        self.woken: list[Any] = []
        self.gathering.wake = self.woken.append

    def answer(self, reply: Any = REPLY, now: float = NOW, flags: int = wire.PIPELINED) -> bool:
        """Does this answer wait? It is sent otherwise."""
        is_taken = self.gathering.takes(self.connection, flags, reply, now)
        if not is_taken:
            self.connection.send(reply)
        return bool(is_taken)

    def received(self) -> bytes:
        """What has come since the last time."""
        try:
            return self.there.recv(1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def row() -> Iterator[Row]:
    """One of which the first answers have been sent."""
    row = Row()
    with row.there, row.connection.sock:
        assert not any(row.answer() for _ in range(ROW))
        assert row.received() == REPLY * ROW
        yield row


def test_answers_wait_for_the_next(row: Row) -> None:
    """Once there was a row of them; the last one takes all others along."""
    assert all(row.answer() for _ in range(3))
    assert row.received() == b""
    row.connection.frames.clear()
    assert not row.answer(b"last")
    assert row.received() == REPLY * 3 + b"last"


def test_a_pause_begins_another_row(row: Row) -> None:
    """Whose first answers do not wait."""
    row.connection.frames.clear()
    row.answer()
    row.connection.frames.append("another request")
    assert not row.answer()


@pytest.mark.parametrize("flags", [0, wire.NESTED, wire.KEEP])
def test_who_waits_for_an_answer_has_it_at_once(row: Row, flags: int) -> None:
    """And those before it, of a client that does not say that more requests follow."""
    row.answer()
    assert not row.answer(b"wanted", flags=flags)
    assert row.received() == REPLY + b"wanted"


def test_large_answers_do_not_wait(row: Row) -> None:
    """Nor do those with buffers, nor more than can be read at once."""
    assert not row.answer(bytes(MOST_BYTES + 1))
    row.received()
    assert not row.answer(bytearray(5))
    row.received()
    assert row.answer(bytes(MOST_BYTES))
    assert row.answer()
    assert not row.answer()


def test_none_waits_longer_than_a_moment(row: Row) -> None:
    """As long as calls go on, the main thread sees to that."""
    assert row.answer()
    assert row.answer(now=NOW + MOMENT_SECONDS / 2)
    assert not row.answer(now=NOW + MOMENT_SECONDS * 2)
    assert row.received() == REPLY * 3


def test_what_waits_while_a_call_takes_long(row: Row) -> None:
    """The control thread is woken for it, and sends it; it looks again until there is a pause."""
    assert row.gathering.look_at is None
    assert row.answer()
    assert len(row.woken) == 1
    assert row.gathering.look_at == NOW + MOMENT_SECONDS
    row.gathering.look(NOW)
    assert row.received() == b""
    row.gathering.look(NOW + MOMENT_SECONDS)
    assert row.received() == REPLY
    assert row.answer(now=NOW + MOMENT_SECONDS)
    assert len(row.woken) == 1
    row.gathering.look(NOW + 3 * MOMENT_SECONDS)
    assert row.received() == REPLY
    row.gathering.look(NOW + 4 * MOMENT_SECONDS)
    assert row.gathering.look_at is None


def test_one_that_was_sent_meanwhile(row: Row) -> None:
    """There is nothing left to be done for it."""
    assert row.answer()
    row.connection.send(b"output")
    row.gathering.look(NOW + MOMENT_SECONDS)
    assert row.received() == REPLY + b"output"


def test_whatever_is_sent_comes_after_them(row: Row) -> None:
    """From either thread."""
    row.answer()
    row.connection.push(b"pushed")
    assert row.received() == REPLY + b"pushed"
    row.answer()
    row.connection.release()
    assert row.received() == REPLY


def test_a_client_that_is_gone(row: Row) -> None:
    """Its answers are gone, too."""
    row.answer()
    row.there.close()
    row.gathering.look(NOW + MOMENT_SECONDS)
    assert not row.connection.gathered_bytes
