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

import errno
import functools
import itertools
import mmap
import os
import pickle
import threading
import time
import weakref
from collections import deque

from . import buffers
from .forks import at_fork

# What stays mapped for the next message: part of this machine's memory, and only for a moment.
KEEP_SHARE = 1 / 16
KEEP_SECONDS = 10.0

# A free segment is lent for a message that fills at least this part of it.
LEAST_FILLED = 1 / 4
LEAST_SEGMENT_BYTES = 256 * 1024

# The most that is lent at a time; the other end has a descriptor of each.
MOST_LENT = 128

# So many answers are on their way over one connection at most: a window of pipelined requests.
MOST_ANSWERS = 300

# And kept free: so many are in one message of many arrays.
MOST_FREE = 64

# One who collects many arrays is not to run out of descriptors or mappings by it: from then on they
# are copied out of their segments at once.
HOLD_SEGMENTS = 64

_PAGE_BYTES = 4096
_READ_WRITE, _SHARED, _PRIVATE_FIXED = 3, 1, 2 | 16
_MADV_REMOVE = getattr(mmap, "MADV_REMOVE", None)  # Linux, since Python 3.8

memfd_create = getattr(os, "memfd_create", None)


_functions = None


def _libc():
    """mmap and munmap. Python's own mmap cannot replace a mapping in place, and holds
    another descriptor for each."""
    global _functions
    if _functions is None:
        try:
            import ctypes  # here, since it takes milliseconds
        except ImportError as error:  # `can_borrow` found it: there is no descriptor left, say
            raise OSError(errno.ENOSYS, "no shared memory: %s" % error) from error

        library = ctypes.CDLL(None, use_errno=True)
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        library.mmap.argtypes = [address, size, number, number, number, ctypes.c_int64]
        library.mmap.restype = address
        library.munmap.argtypes = [address, size]
        _functions = ctypes, library
    return _functions


def _map(address, size, flags, fd):
    """Map it there, or (None) anywhere: a list of the address. Raises OSError."""
    ctypes, library = _libc()
    found = []
    found.extend(map(library.mmap, [address], [size], [_READ_WRITE], [flags], [fd], [0]))
    if found[0] == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def _at_once(function, taken, *others):
    """Call a C function with all that is in this list, taking it out: each is taken and used
    within C, where no interrupt comes in between, which would lose it, and no other thread."""
    try:
        deque(map(function, iter(taken.pop, None), *others), 0)
    except IndexError:
        pass  # it is empty


class Descriptors(list):
    """One descriptor, or none any more; closed with its last owner. It gets into such a list within
    C, too, as in `_at_once`."""

    def close(self):
        """Whoever is to have it has it."""
        _at_once(os.close, self)

    __del__ = close


# --- the lender ---


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


def allocate(size):
    """The descriptor of `size` bytes of memory without a name. All of it is there: a write to it
    later cannot fail. Raises OSError."""
    descriptors = _nameless()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptors[0], 0, size)
    else:
        _fill(descriptors[0], size)
    return descriptors


def _nameless():
    descriptors = Descriptors()
    if memfd_create is not None:
        descriptors.extend(map(memfd_create, ["spawny"], [os.MFD_CLOEXEC]))
        return descriptors
    import tempfile  # here, since it loads much

    for directory in ("/dev/shm", tempfile.gettempdir()):
        if hasattr(os, "O_TMPFILE"):
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            try:
                descriptors.extend(map(os.open, [directory], [flags], [0o600]))
                return descriptors
            except OSError:
                pass  # no such directory, or not on that file system
        try:
            fd, path = tempfile.mkstemp(prefix="spawny-", dir=directory)
        except OSError:
            continue
        descriptors.append(fd)
        os.unlink(path)
        return descriptors
    raise OSError(errno.ENOSPC, "no place for a temporary file")


def _fill(fd, size):
    zeros = bytes(1024 * 1024)
    while size > 0:
        size -= os.write(fd, zeros[:size])


# --- the borrower ---


class Borrowed:
    """A segment of the other end's; takes the descriptor over."""

    def __init__(self, number, descriptors, size):
        self.number = number
        self.descriptors = descriptors
        self.size = size
        self._addresses = _map(None, size, _SHARED, descriptors[0])
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
        _map(self._addresses[0], self.size, flags, self.descriptors[0])

    def whole(self):
        """A new object that exports the whole of it, and as an object can be watched."""
        return (_libc()[0].c_char * self.size).from_address(self._addresses[0])

    def unmap(self):
        """Let go of it; nothing of this process may refer to it any more. Once more does no harm,
        if it was interrupted."""
        _at_once(_libc()[1].munmap, self._addresses, itertools.repeat(self.size))
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


# --- both ---


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
        settle()
        with _registry_lock:
            _let_go_of_forgotten()
        borrower = self.borrower
        fields = [], [], []
        # Noted before there is anything to note: what an interrupt breaks off is told again.
        self._told.setdefault(connection, deque(maxlen=MOST_ANSWERS)).append(fields)
        _move(borrower.given_back, fields[0])
        _move(borrower.retired, fields[1])
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
    """All of a deque to the end of a list; within C, as in `_at_once`."""
    try:
        target.extend(iter(source.popleft, None))
    except IndexError:
        pass  # it is empty


# --- fork ---

_lenders = weakref.WeakSet()
# All that is mapped. Held here: the collector would not call back a weak reference that is garbage
# together with what it refers to.
_borrowed = set()
_registry_lock = threading.Lock()  # under which nobody waits


def _before_fork():
    _registry_lock.acquire()
    for borrowed in list(_borrowed):
        if borrowed.watch is not None and borrowed.is_mapped and not borrowed.is_private:
            # In its place and in one step: the pages are the same, and each process gets its own
            # copy of one when it writes to it. Nothing that another thread writes is lost.
            borrowed.map_again(_PRIVATE_FIXED)
            borrowed.is_private = True


def _after_in_parent():
    _registry_lock.release()


def _after_in_child():
    global _registry_lock
    _registry_lock = threading.Lock()
    for lender in list(_lenders):
        lender.forked()
    for borrowed in list(_borrowed):
        borrowed.is_forgotten = True  # the parent gives it back
        if borrowed.watch is None:
            _let_go(borrowed)
    settle()


at_fork(_before_fork, _after_in_parent, _after_in_child)
