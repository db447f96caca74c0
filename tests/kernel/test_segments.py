"""What a lender and a borrower do by themselves, without a connection between them."""

import gc
import os
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spawny import kernel
from spawny.kernel import buffers, segments
from spawny.kernel.buffers import Parts
from spawny.kernel.segments import Borrower, Lender
from tests.interpreters import Interpreter

MIB = 1024 * 1024


class Connection:
    pass


@pytest.fixture
def lender() -> Iterator[Lender]:
    lender = Lender(keep_bytes=8 * MIB)
    yield lender
    lender.close()


@pytest.fixture
def borrower() -> Iterator[Borrower]:
    borrower = Borrower(lambda: None)
    yield borrower
    borrower.close()


def lend(lender: Lender, size: int, connection: Any = "connection") -> Any:
    """A segment that was sent."""
    parts = Parts()
    loan = lender.take(size, parts)
    parts.add_loan(loan)
    parts.goes_over(connection)
    return loan


def passed(borrower: Borrower, size: int = MIB, number: int = 1) -> None:
    """A segment that was passed, its first bytes written."""
    descriptors = segments.allocate(size)
    fd = os.dup(descriptors[0])
    os.pwrite(fd, b"lent", 0)
    borrower.add(number, fd, size)


def given_back(borrower: Borrower) -> list[tuple[int, int]]:
    """What is noted as no more in use."""
    segments.settle()
    return list(borrower.given_back)


def retired(borrower: Borrower) -> list[int]:
    """What is noted as not to be lent again."""
    segments.settle()
    return list(borrower.retired)


@pytest.mark.parametrize("size", [1, 256 * 1024, 256 * 1024 + 1, 5 * MIB, 5 * MIB + 1, 100 * MIB])
def test_a_class_holds_what_it_is_for(size: int) -> None:
    """A segment is large enough, and a quarter larger at most, but for small ones."""
    found = segments.size_class(size)
    assert size <= found <= max(segments.LEAST_SEGMENT_BYTES, size * 5 / 4 + 4096)
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
    loans = [lend(lender, 1) for _ in range(segments.MOST_LENT)]
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
    small = [lend(lender, 1) for _ in range(segments.MOST_LENT)]
    many = Lender(keep_bytes=1 << 40)
    small = [lend(many, 1) for _ in range(segments.MOST_LENT)]
    for loan in small:
        many.returned([(loan.number, 1)])
    assert len(many.forgotten) == segments.MOST_LENT - segments.MOST_FREE
    many.close()


def test_what_is_not_used_is_given_up() -> None:
    """Also what came back since nobody sent it; `trim` is called until nothing is left."""
    asked: list[bool] = []
    lender = Lender(on_kept=lambda: asked.append(True))
    loan = lender.take(MIB, Parts())
    assert asked
    assert lender.trim(0)
    assert loan.holder is None
    assert lender.trim(loan.free_since + segments.KEEP_SECONDS - 0.1)
    assert not lender.trim(loan.free_since + segments.KEEP_SECONDS)
    assert list(lender.forgotten) == [loan.number]
    assert len(asked) == 1
    lender.take(MIB, Parts())
    assert len(asked) == 2
    lender.close()


def test_a_view_keeps_it_borrowed(borrower: Borrower) -> None:
    """It is given back when the last thing that lies in it is gone, and can then be borrowed."""
    passed(borrower)
    view = borrower.borrow(1)[:4]
    assert view == b"lent"
    with pytest.raises(LookupError):
        borrower.borrow(1)
    other = view[1:2]
    del view
    assert not given_back(borrower)
    del other
    assert given_back(borrower) == [(1, 1)]
    borrower.borrow(1)
    assert given_back(borrower) == [(1, 1), (1, 2)]


def test_a_finalizer_in_a_cycle_still_has_it(borrower: Borrower) -> None:
    """The collector clears weak references before it runs finalizers; these may use the memory."""

    class Owner:
        def __del__(self) -> None:
            seen.append((bytes(self.view[:4]), given_back(borrower)))

    seen: list[Any] = []
    passed(borrower)
    owner = Owner()
    owner.me, owner.view = owner, borrower.borrow(1)  # type: ignore[attr-defined]
    del owner
    gc.collect()
    assert seen == [(b"lent", [])]
    assert given_back(borrower) == [(1, 1)]


def test_what_is_given_back_while_the_segments_are_busy(borrower: Borrower) -> None:
    """As during a fork: nobody waits, and it is done right after."""
    passed(borrower)
    view = borrower.borrow(1)
    done = threading.Event()

    def drop() -> None:
        nonlocal view
        del view
        done.set()

    with segments._registry_lock:
        thread = threading.Thread(target=drop)
        thread.start()
        assert done.wait(20)
        assert not borrower.given_back
    assert given_back(borrower) == [(1, 1)]
    thread.join()


def test_the_session_ends_first(borrower: Borrower) -> None:
    """What is borrowed stays as it is; then it is unmapped, and nobody told."""
    passed(borrower)
    view = borrower.borrow(1)
    borrower.close()
    assert view[:4] == b"lent"
    known = set(segments._borrowed)
    del view
    segments.settle()
    assert len(known) == len(segments._borrowed) + 1
    assert not given_back(borrower)


def test_forgotten_while_in_use(borrower: Borrower) -> None:
    """It stays until it is not."""
    passed(borrower)
    view = borrower.borrow(1)
    borrower.forget(1)
    assert view[:4] == b"lent"
    del view
    assert not borrower.knows(1)
    assert not given_back(borrower)


def test_a_fork_makes_it_private() -> None:
    """What either process writes stays with it; the parent has it forgotten, the child tells
    nothing."""
    borrower = Borrower(lambda: None)
    passed(borrower)
    view = borrower.borrow(1)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        is_well = view[:4] == b"lent"
        view[:4] = b"mine"
        del view
        os._exit(0 if is_well and not given_back(borrower) and not borrower.retired else 1)
    os.close(read)
    view[:4] = b"ours"
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    assert view[:4] == b"ours"
    del view
    assert retired(borrower) == [1]
    assert not given_back(borrower)


SCRIPT = """
import importlib.util, os, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "k", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
sys.modules["k"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["k"])
from k import buffers, segments
from k.buffers import Parts

def lend(lender):
    parts = Parts()
    loan = lender.take(300000, parts)
    parts.add_loan(loan)
    parts.goes_over("connection")
    return loan

def given_back(borrower):
    segments.settle()
    return list(borrower.given_back)

lender = segments.Lender()
borrower = segments.Borrower(lambda: None)
loan = lend(lender)
loan.memory[:4] = b"lent"
borrower.add(loan.number, os.dup(loan.descriptors[0]), loan.size)
view = borrower.borrow(1)[:4]
assert view == b"lent" and not given_back(borrower)
if not os.fork():
    view[:4] = b"mine"
    os._exit(0)
os.wait()
assert view == b"lent"
view[:4] = b"ours"
assert loan.memory[:4] == b"lent"
del view
if sys.implementation.name == "cpython":
    assert not given_back(borrower) and list(borrower.retired) == [1]
    lender.forget(1)
    loan = lend(lender)
    borrower.add(loan.number, os.dup(loan.descriptors[0]), loan.size)
    view = borrower.borrow(2)
    view = view[1:2]
    assert not given_back(borrower)
    del view
    assert given_back(borrower) == [(2, 1)]
    lender.returned([(2, 1)])
    assert lend(lender) is loan
else:
    assert not buffers.can_borrow()
print("well")
"""


def test_under_every_interpreter(interpreter: Interpreter) -> None:
    """Lent, borrowed, made private by a fork, and given back exactly when nothing has it; where
    that cannot be known, nothing is borrowed."""
    done = subprocess.run(
        [interpreter.path, "-c", textwrap.dedent(SCRIPT), str(Path(kernel.__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "well\n", done.stderr
