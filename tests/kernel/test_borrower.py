"""What a borrower does by itself, without a connection to anybody."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from spawny.kernel import borrower as borrowing
from spawny.kernel.borrower import Borrower
from tests.kernel.borrowing import given_back, passed


@pytest.fixture
def borrower() -> Iterator[Borrower]:
    borrower = Borrower(lambda: None)
    yield borrower
    borrower.close()


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

    with borrowing._registry_lock:
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
    known = set(borrowing._borrowed)
    del view
    borrowing.settle()
    assert len(known) == len(borrowing._borrowed) + 1
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
