"""Lends segments: copies what is sent into memory of ours, which the other end has mapped, too.

What is free is kept for the next message, for a while. Who has a segment is one attribute of it,
set before a message is sent, since after that nobody knows whether it went.
"""

import errno
import mmap
import os
import threading
import time
import weakref
from collections import deque

from .memory import allocate

# What stays mapped for the next message: part of this machine's memory, and only for a moment.
KEEP_SHARE = 1 / 16
KEEP_SECONDS = 10.0

# A free segment is lent for a message that fills at least this part of it.
LEAST_FILLED = 1 / 4
LEAST_SEGMENT_BYTES = 256 * 1024

# The most that is lent at a time; the other end has a descriptor of each.
MOST_LENT = 128

# And kept free: so many are in one message of many arrays.
MOST_FREE = 64

_PAGE_BYTES = 4096
_MADV_REMOVE = getattr(mmap, "MADV_REMOVE", None)  # Linux, since Python 3.8

_lenders = weakref.WeakSet()


class Loan:
    """A segment of our own. It is unmapped, in C, when nobody has it any more: a thread may still
    be in the middle of filling it when the session ends."""

    def __init__(self, number, descriptors, size):
        self.number = number
        self.descriptors = descriptors
        self.size = size
        self._mapping = mmap.mmap(descriptors[0], size)
        self.memory = memoryview(self._mapping)
        # None when it is free; a weak reference to the message that it is being put into; the
        # connection that it was lent over; _FORGOTTEN. One word, since an interrupt may come
        # between any two lines: it is always the one or the other.
        self.holder = None
        self.times = 0  # that it was lent: what is told of another time is ignored
        self.free_since = time.monotonic()

    def lend(self, connection):
        """It goes over this connection. Raises OSError where the session that it was for is over:
        in the next one its number is another's."""
        if self.holder is _FORGOTTEN:
            raise OSError(errno.EPIPE, "the other end has left")
        self.times += 1
        self.holder = connection

    def empty(self):
        """Give its memory back to the system now, though the other end still has it mapped."""
        if _MADV_REMOVE is not None:
            try:
                self._mapping.madvise(_MADV_REMOVE)
            except OSError:
                pass  # not on that file system: it goes when the other end has unmapped it


_FORGOTTEN = "forgotten"


class Lender:
    """The segments of one session that are ours to lend. From any thread.

    `on_kept` is called, in the middle of any line, when `trim` has something to do in a while.
    """

    def __init__(self, keep_bytes=None, on_kept=lambda: None):
        self._keep_bytes = keep_share() if keep_bytes is None else keep_bytes
        self._on_kept = on_kept
        self._is_watched = False  # will `trim` be called?
        self._lock = threading.RLock()  # what goes back may do so in the middle of anything
        self._loans = {}
        self._next_number = 1
        self.is_closed = False
        self.forgotten = deque()  # numbers of which the other end is to be told
        _lenders.add(self)

    @property
    def lent(self):
        """Those that are not free."""
        return [loan for loan in list(self._loans.values()) if loan.holder is not None]

    def _free(self):
        """Those that are; the one that has been so for longest is the first."""
        free = [loan for loan in self._loans.values() if loan.holder is None]
        return sorted(free, key=lambda loan: loan.free_since)

    def take(self, size, message):
        """A segment of at least this size for a message; raises OSError where the system has no
        more memory, descriptors or room. It is free again if the message goes without having been
        sent."""
        with self._lock:
            loan = self._fitting(size)
            if loan is None and self._recover():
                loan = self._fitting(size)
            if loan is None:
                if len(self.lent) >= MOST_LENT:
                    raise OSError(errno.EMFILE, "too many segments are lent already")
                loan = self._create(size_class(size))
            loan.holder = weakref.ref(message)
        self._watch()
        return loan

    def _fitting(self, size):
        """The smallest free one that is lent for so many bytes; None without one."""
        most = max_size(size)
        found = None
        for loan in self._loans.values():
            if loan.holder is None and size <= loan.size <= most:
                if found is None or loan.size < found.size:
                    found = loan
        return found

    def _create(self, size):
        if self.is_closed:
            raise OSError(errno.EPIPE, "the other end has left")
        loan = Loan(self._next_number, allocate(size), size)
        self._loans[self._next_number] = loan
        self._next_number += 1
        return loan

    def _recover(self):
        """Have back what was put into messages that are no more: their sending was broken off, by
        a Ctrl-C perhaps. (Not by a finalizer of theirs, where the next one would be lost.) True if
        there were any."""
        found = False
        for loan in list(self._loans.values()):
            if loan.holder is _FORGOTTEN:
                self._forget(loan)
            elif type(loan.holder) is weakref.ref and loan.holder() is None:
                self._set_free(loan)
                found = True
        if found:
            self._give_up_excess()
        return found

    def _watch(self):
        if not self._is_watched:
            self._is_watched = True
            self._on_kept()

    def to_be_passed(self, number):
        """A segment that the other end does not know yet."""
        loan = self._loans.get(number)
        if loan is None or not loan.descriptors:
            raise OSError(errno.EBADF, "there is no segment %d to be passed" % number)
        return loan

    def returned(self, given_back):
        """The other end gives these (number, times) back, so it has them mapped."""
        with self._lock:
            for number, times in given_back:
                loan = self._loans.get(number)
                is_lent = loan is not None and type(loan.holder) not in _PASSING
                if is_lent and loan.times == times and loan.holder is not _FORGOTTEN:
                    loan.descriptors.close()
                    self._set_free(loan)
            self._give_up_excess()
        self._watch()

    def _set_free(self, loan):
        loan.free_since = time.monotonic()
        loan.holder = None

    def _give_up_excess(self):
        free = self._free()
        excess = sum(each.size for each in free) - self._keep_bytes
        while excess > 0 or len(free) > MOST_FREE:
            excess -= free[0].size
            self._discard(free.pop(0))

    def forget(self, number):
        """Whatever becomes of it at the other end, it is not lent again."""
        with self._lock:
            loan = self._loans.get(number)
            if loan is not None and loan.holder is not None:
                self._forget(loan)

    def _forget(self, loan):
        loan.holder = _FORGOTTEN
        self.forgotten.append(loan.number)
        self._loans.pop(loan.number, None)

    def forget_carried_by(self, connection):
        """The connection is gone, and perhaps a message with it: who knows whether it came."""
        with self._lock:
            for loan in self.lent:
                if loan.holder is connection:
                    self._forget(loan)

    def trim(self, now):
        """Give up what has been free for a while; True if some is still kept. By a thread that
        takes no interrupts."""
        self._is_watched = False  # first: what comes back from now on is for the next time
        with self._lock:
            self._recover()
            for loan in self._free():
                if now - loan.free_since >= KEEP_SECONDS:
                    self._discard(loan)
            is_left = any(type(each.holder) in _PASSING for each in self._loans.values())
            self._is_watched = self._is_watched or is_left
        return self._is_watched

    def _discard(self, loan):
        loan.empty()
        self._forget(loan)

    def close(self):
        """The session is over."""
        with self._lock:
            self.is_closed = True
            for loan in self._free():
                loan.empty()
            for loan in self._loans.values():
                loan.holder = _FORGOTTEN
            self._loans = {}

    def forked(self):
        """In a forked child: they are the parent's."""
        self._lock = threading.RLock()
        self.is_closed = True
        self._loans = {}


# The kinds of holders that `trim` looks after: none, and a message.
_PASSING = (type(None), weakref.ref)


def keep_share():
    """How much memory a lender keeps mapped for the next message, in bytes."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        total = 1 << 32
    return int(total * KEEP_SHARE)


def size_class(size):
    """The size of the segment to make for so many bytes: a quarter of a power of two, times 4 to 7,
    so that at most a fifth is not used."""
    size = max(size, LEAST_SEGMENT_BYTES)
    step = max(_PAGE_BYTES, 1 << (size - 1).bit_length() - 3)
    return -(-size // step) * step


def max_size(size):
    """The largest free segment that is lent for so many bytes."""
    return max(LEAST_SEGMENT_BYTES, int(size / LEAST_FILLED))


def forked():
    """In a forked child."""
    for lender in list(_lenders):
        lender.forked()
