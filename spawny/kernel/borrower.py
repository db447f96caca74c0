"""Borrows segments: maps what the other end has lent, and sees when nothing lies in it any more.

The one rule: what there is to do at the end of a borrowing may be done twice, and is done under a
lock by whoever carries the next message. A finalizer could not wait for the lock, nor be sure to
let go of it.

The hooks for a fork are registered in `segments.py`.
"""

import errno
import functools
import itertools
import os
import threading
import weakref
from collections import deque

from . import buffers
from .memory import PRIVATE_FIXED, SHARED, Descriptors, at_once, libc, map_memory

# One who collects many arrays is not to run out of descriptors or mappings by it: from then on they
# are copied out of their segments at once.
HOLD_SEGMENTS = 64

# All that is mapped. Held here: the collector would not call back a weak reference that is garbage
# together with what it refers to.
_borrowed = set()
_registry_lock = threading.Lock()  # under which nobody waits


class Borrowed:
    """A segment of the other end's; takes the descriptor over."""

    def __init__(self, number, descriptors, size):
        self.number = number
        self.descriptors = descriptors
        self.size = size
        self._addresses = map_memory(None, size, SHARED, descriptors[0])
        self.watch = None  # while it is in use
        self.times = 0  # that it was lent to us
        self.is_private = False  # since a fork
        self.is_forgotten = False

    @property
    def is_mapped(self):
        """Not if it has been let go of."""
        return bool(self._addresses)

    def map_again(self, flags):
        """Map it otherwise, in its place and in one step."""
        map_memory(self._addresses[0], self.size, flags, self.descriptors[0])

    def whole(self):
        """A new object that exports the whole of it, and as an object can be watched."""
        return (libc()[0].c_char * self.size).from_address(self._addresses[0])

    def unmap(self):
        """Let go of it; nothing of this process may refer to it any more. Once more does no harm,
        if it was interrupted."""
        at_once(libc()[1].munmap, self._addresses, itertools.repeat(self.size))
        self.descriptors.close()


class _Watch(weakref.ref):
    """Sees the end of what has borrowed a segment."""

    __slots__ = ("borrowed", "borrower", "wake")


class Borrower:
    """The segments of one session that were lent to us.

    `notify` is called, in the middle of any line of any thread, when one is to be given back.
    """

    def __init__(self, notify):
        self.notify = notify
        self._known = {}
        self.given_back = deque()  # (number, times) of what the lender may lend again
        self.retired = deque()  # numbers that it must forget
        self.is_closed = False

    def knows(self, number):
        """Is it mapped already?"""
        return number in self._known

    def add(self, number, fd, size):
        """Map a segment that was passed; takes the descriptor over. Raises OSError."""
        descriptors = Descriptors([fd])
        with _registry_lock:
            if self.is_closed or number in self._known or os.fstat(fd).st_size < size:
                raise OSError(errno.EINVAL, "no segment to be borrowed")
            borrowed = Borrowed(number, descriptors, size)
            self._known[number] = borrowed
            _borrowed.add(borrowed)

    def borrow(self, number):
        """A memoryview of the segment, in use until it and all that came of it are gone.

        Raises LookupError where the number is none, or in use.
        """
        with _registry_lock:
            borrowed = self._known[number]
            if borrowed.watch is not None or borrowed.is_private:
                raise LookupError("segment %d is in use" % number)
            whole = borrowed.whole()
            # What is watched is not the whole itself: of what is garbage in a cycle the collector
            # says that it is gone before it runs the finalizers, which may still use it. It does
            # not look at code objects, and they are gone when they are gone.
            end = whole
            if _HAS_REPLACE:
                end = whole.end = _END.replace()
            # What came last is called first. The other is in C: what it notes is noted, where an
            # interrupt may end what is in Python.
            wake = weakref.ref(end, functools.partial(_hint, self))
            watch = _Watch(end, _due.append)
            watch.wake = wake
            watch.borrower, watch.borrowed = self, borrowed
            borrowed.times += 1
            borrowed.watch = watch
        return memoryview(whole).cast("B")

    @property
    def is_full(self):
        """Are so many in use that no more should be?"""
        # (A list made in C: another thread may map one meanwhile.)
        known = list(self._known.values())
        return sum(borrowed.watch is not None for borrowed in known) >= HOLD_SEGMENTS

    def returning(self, borrowed, watch):
        """What has borrowed it is gone. Under the lock; once more where an interrupt came."""
        if borrowed.watch is not watch:
            return
        if self.is_closed or borrowed.is_forgotten:
            _let_go(borrowed)
        elif borrowed.is_private:
            _let_go(borrowed)
            self.retired.append(borrowed.number)
            self._known.pop(borrowed.number, None)
        else:
            self.given_back.append((borrowed.number, borrowed.times))
        borrowed.watch = None  # last: all that is before does no harm if it is done twice

    def refuse(self, number):
        """It was lent, but will not be used: it could not even be mapped, perhaps."""
        self.forget(number)
        self.retired.append(number)
        self.notify()

    def forget(self, number):
        """The lender has."""
        with _registry_lock:
            borrowed = self._known.get(number)
            if borrowed is not None:
                borrowed.is_forgotten = True
                self._known.pop(number, None)
                _let_go_of_forgotten()

    def close(self):
        """The session is over; what is in use stays until it is not."""
        self.is_closed = True
        for number in list(self._known):
            self.forget(number)


def _end():
    pass


_END = _end.__code__
# Before there was, all buffers are arrays of numpy, into which the collector does not look.
_HAS_REPLACE = hasattr(_END, "replace")

_due = buffers.due  # watches that have seen it


def settle():
    """Deal with what is due. Not in a finalizer: one may run under the lock."""
    while _due:
        with _registry_lock:
            if _due:
                watch = _due[0]
                watch.borrower.returning(watch.borrowed, watch)
                watch.borrower.notify()
                _due.popleft()  # last: all that is before may be done twice


def tidy():
    """Deal with what is due, and with what an interrupt has kept from being let go of."""
    settle()
    with _registry_lock:
        _let_go_of_forgotten()


def _hint(borrower, reference):
    """In a finalizer: something is due. (An interrupt may lose this; `due` is looked at by all.)"""
    borrower.notify()


def _let_go(borrowed):
    borrowed.unmap()
    _borrowed.discard(borrowed)  # last, as it is found by this if an interrupt comes before


def _let_go_of_forgotten():
    """Under the lock. All of them: an interrupt may have kept an earlier one."""
    for borrowed in list(_borrowed):
        if borrowed.is_forgotten and borrowed.watch is None:
            _let_go(borrowed)


# --- fork ---


def before_fork():
    """Make private what is in use; nothing is mapped or let go of until the fork is over."""
    _registry_lock.acquire()
    for borrowed in list(_borrowed):
        if borrowed.watch is not None and borrowed.is_mapped and not borrowed.is_private:
            # In its place and in one step: the pages are the same, and each process gets its own
            # copy of one when it writes to it. Nothing that another thread writes is lost.
            borrowed.map_again(PRIVATE_FIXED)
            borrowed.is_private = True


def after_in_parent():
    """The fork is over, or failed."""
    _registry_lock.release()


def renew_lock():
    """In a forked child, first: what the collector runs meanwhile may settle."""
    global _registry_lock
    _registry_lock = threading.Lock()


def forked():
    """In a forked child, after that."""
    for borrowed in list(_borrowed):
        borrowed.is_forgotten = True  # the parent gives it back
        if borrowed.watch is None:
            _let_go(borrowed)
    settle()
