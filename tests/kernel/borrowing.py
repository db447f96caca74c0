"""Segments that nobody has lent, as a borrower is passed them."""

import os

from spawny.kernel.borrower import Borrower, settle
from spawny.kernel.memory import allocate

MIB = 1024 * 1024


def passed(borrower: Borrower, size: int = MIB, number: int = 1) -> None:
    """A segment that was passed, its first bytes written."""
    descriptors = allocate(size)
    fd = os.dup(descriptors[0])
    os.pwrite(fd, b"lent", 0)
    borrower.add(number, fd, size)


def given_back(borrower: Borrower) -> list[tuple[int, int]]:
    """What is noted as no more in use."""
    settle()
    return list(borrower.given_back)


def retired(borrower: Borrower) -> list[int]:
    """What is noted as not to be lent again."""
    settle()
    return list(borrower.retired)
