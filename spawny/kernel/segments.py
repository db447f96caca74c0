"""Memory that two processes share for what is too large for a socket; the same file on both ends.

The sender *lends* a segment: it copies the buffers of one message into it, and touches it no more
until it is given back. The receiver *borrows* it: the objects that it makes lie in that memory, and
it gives the segment back when nothing refers to it any more. A segment is passed once and mapped
once by either end, and then lent again and again: copying into memory that is mapped and warm is
ten times as fast as into fresh memory.

A borrowed segment is the borrower's own for as long as it has it. Two things could break that. A
fork: the child would share it with its parent, so it is made private to both right before. And the
end of what borrowed it, without a word: then the lender forgets the segment, and the memory goes
when the last process that has it mapped lets go of it; no name of it is left anywhere.
"""

import pickle
import time
import weakref
from collections import deque

from . import borrower, lender
from .borrower import Borrower
from .forks import at_fork
from .lender import Lender

# So many answers are on their way over one connection at most: a window of pipelined requests.
MOST_ANSWERS = 300


class Segments:
    """Both directions of one session, as one of its ends has them.

    `notify` is called when the other end is to be told of something, in the middle of any line of
    any thread; `on_kept` when segments are kept for the next message, and `trim` is to be called
    every now and then until it says that none is.
    """

    def __init__(self, can_lend, notify, on_kept):
        self.lender = Lender(on_kept=on_kept) if can_lend else None
        self.borrower = Borrower(notify)
        self._notify = notify
        self._told = weakref.WeakKeyDictionary()  # connection -> what was told last over it

    def news(self, connection):
        """What the other end is to be told over this connection, pickled: the body of a SEGMENTS
        frame."""
        borrower.tidy()
        fields = [], [], []
        # Noted before there is anything to note: what an interrupt breaks off is told again.
        self._told.setdefault(connection, deque(maxlen=MOST_ANSWERS)).append(fields)
        _move(self.borrower.given_back, fields[0])
        _move(self.borrower.retired, fields[1])
        if self.lender is not None:
            _move(self.lender.forgotten, fields[2])
        return pickle.dumps(fields, 2)

    def tell_again(self, connection):
        """What was told last over this connection may never have come; it does no harm to tell it
        twice."""
        told = self._told.pop(connection, ())
        for given_back, retired, forgotten in told:
            self.borrower.given_back.extend(given_back)
            self.borrower.retired.extend(retired)
            if self.lender is not None:
                self.lender.forgotten.extend(forgotten)
        if told:
            self._notify()

    def heard(self, body):
        """What the other end tells."""
        given_back, retired, forgotten = pickle.loads(body)
        if self.lender is not None:
            for number in retired:
                self.lender.forget(number)
            if given_back:
                self.lender.returned(given_back)
            self._tell_forgotten()
        for number in forgotten:
            self.borrower.forget(number)

    def trim(self):
        """Give up what was not used for a while; True if there is something left to be trimmed."""
        is_left = False
        if self.lender is not None:
            is_left = self.lender.trim(time.monotonic())
            self._tell_forgotten()
        return is_left

    def _tell_forgotten(self):
        if self.lender.forgotten:
            self._notify()

    def connection_is_over(self, connection):
        """What was sent over it may never have come."""
        self.tell_again(connection)
        if self.lender is not None:
            self.lender.forget_carried_by(connection)
            self._tell_forgotten()

    def close(self):
        """The session is over."""
        if self.lender is not None:
            self.lender.close()
        self.borrower.close()


def _move(source, target):
    """All of a deque to the end of a list; within C, as in `memory.at_once`."""
    try:
        target.extend(iter(source.popleft, None))
    except IndexError:
        pass  # it is empty


def _after_in_child():
    borrower.renew_lock()
    lender.forked()
    borrower.forked()


# In one registration, since the order counts.
at_fork(borrower.before_fork, borrower.after_in_parent, _after_in_child)
