"""What a lender does by itself, without a connection to anybody."""

from collections.abc import Iterator
from typing import Any

import pytest

from spawny.kernel import buffers
from spawny.kernel import lender as lending
from spawny.kernel.buffers import Parts
from spawny.kernel.lender import Lender

MIB = 1024 * 1024


class Connection:
    pass


@pytest.fixture
def lender() -> Iterator[Lender]:
    lender = Lender(keep_bytes=8 * MIB)
    yield lender
    lender.close()


def lend(lender: Lender, size: int, connection: Any = "connection") -> Any:
    """A segment that was sent."""
    parts = Parts()
    loan = lender.take(size, parts)
    parts.add_loan(loan)
    parts.goes_over(connection)
    return loan


@pytest.mark.parametrize("size", [1, 256 * 1024, 256 * 1024 + 1, 5 * MIB, 5 * MIB + 1, 100 * MIB])
def test_a_class_holds_what_it_is_for(size: int) -> None:
    """A segment is large enough, and a quarter larger at most, but for small ones."""
    found = lending.size_class(size)
    assert size <= found <= max(lending.LEAST_SEGMENT_BYTES, size * 5 / 4 + 4096)
    assert found % 4096 == 0


def test_what_is_given_back_is_lent_again(lender: Lender) -> None:
    """And nothing before."""
    first, second = lend(lender, MIB), lend(lender, MIB)
    assert first is not second
    lender.returned([(second.number, second.times)])
    assert lend(lender, MIB) is second
    assert lend(lender, MIB) not in (first, second)


def test_a_much_larger_one_is_not_lent(lender: Lender) -> None:
    """Who keeps a few bytes of it would keep it all."""
    large = lend(lender, 8 * MIB)
    lender.returned([(large.number, large.times)])
    assert lend(lender, MIB) is not large
    assert lend(lender, 6 * MIB) is large


def test_giving_back_twice(lender: Lender) -> None:
    """It is told again where a message may have been lost; it counts once, for that one time."""
    loan = lend(lender, MIB)
    lender.returned([(loan.number, 1)])
    assert lend(lender, MIB) is loan
    lender.returned([(loan.number, 1)])
    assert loan.holder is not None
    lender.returned([(loan.number, 2)])
    assert loan.holder is None


def test_what_is_never_sent_is_free_again(lender: Lender) -> None:
    """However the message was broken off: it is enough that it is no more."""
    parts = Parts()
    loan = lender.take(MIB, parts)
    assert lender.take(MIB, Parts()) is not loan
    del parts
    assert lender.take(MIB, Parts()) is loan


def test_what_was_begun_to_be_sent_is_not_free(lender: Lender) -> None:
    """It may have come, whatever was raised here right after."""
    parts = Parts()
    loan = lender.take(MIB, parts)
    parts.add_loan(loan)
    parts.goes_over(Connection())
    del parts
    assert lender.take(MIB, Parts()) is not loan


def test_what_moves_into_another_message(lender: Lender) -> None:
    """It is free when that is no more."""
    parts = Parts()
    loan = lender.take(MIB, parts)
    parts.add_loan(loan)
    parts.pieces = [b""]
    joined = buffers.join([b"before", parts])
    del parts
    assert lender.take(MIB, Parts()) is not loan
    del joined
    assert lender.take(MIB, Parts()) is loan


def test_a_connection_that_is_over(lender: Lender) -> None:
    """What it carried is forgotten; what others did is not."""
    one, other = Connection(), Connection()
    lost, kept = lend(lender, MIB, one), lend(lender, MIB, other)
    lender.forget_carried_by(one)
    assert list(lender.forgotten) == [lost.number]
    assert lender.lent == [kept]
    lender.returned([(lost.number, 1)])  # it is too late for that
    assert lend(lender, MIB) is not lost


def test_a_message_of_a_session_that_is_over(lender: Lender) -> None:
    """It is not sent in the next one, where the numbers are others'."""
    parts = Parts()
    parts.add_loan(lender.take(MIB, parts))
    lender.close()
    with pytest.raises(BrokenPipeError):
        parts.goes_over(Connection())


def test_the_most_that_is_lent(lender: Lender) -> None:
    """Then there is none, and the message goes another way."""
    loans = [lend(lender, 1) for _ in range(lending.MOST_LENT)]
    with pytest.raises(OSError, match="too many"):
        lender.take(1, Parts())
    lender.returned([(loans[0].number, 1)])
    assert lend(lender, 1) is loans[0]


def test_what_is_kept_is_bounded(lender: Lender) -> None:
    """In bytes, the oldest going first; and in number."""
    loans = [lend(lender, 3 * MIB) for _ in range(3)]
    for loan in loans:
        lender.returned([(loan.number, 1)])
    assert list(lender.forgotten) == [loans[0].number]
    small = [lend(lender, 1) for _ in range(lending.MOST_LENT)]
    many = Lender(keep_bytes=1 << 40)
    small = [lend(many, 1) for _ in range(lending.MOST_LENT)]
    for loan in small:
        many.returned([(loan.number, 1)])
    assert len(many.forgotten) == lending.MOST_LENT - lending.MOST_FREE
    many.close()


def test_what_is_not_used_is_given_up() -> None:
    """Also what came back since nobody sent it; `trim` is called until nothing is left."""
    asked: list[bool] = []
    lender = Lender(on_kept=lambda: asked.append(True))
    loan = lender.take(MIB, Parts())
    assert asked
    assert lender.trim(0)
    assert loan.holder is None
    assert lender.trim(loan.free_since + lending.KEEP_SECONDS - 0.1)
    assert not lender.trim(loan.free_since + lending.KEEP_SECONDS)
    assert list(lender.forgotten) == [loan.number]
    assert len(asked) == 1
    lender.take(MIB, Parts())
    assert len(asked) == 2
    lender.close()
