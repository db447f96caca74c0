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
import os
import pickle
import threading
import time
import weakref
from collections import deque

from .forks import at_fork

# What stays mapped for the next message: part of this machine's memory, and only for a moment.
KEEP_SHARE = 1 / 16
KEEP_SECONDS = 10.0

# A free segment is lent for a message that fills at least this part of it.
LEAST_FILLED = 1 / 4
LEAST_SEGMENT_BYTES = 256 * 1024

# The most that is lent at a time; the other end has a descriptor of each.
MOST_LENT = 128

# One who collects many arrays is not to run out of descriptors or mappings by it: from then on they
# are copied out of their segments at once.
HOLD_SEGMENTS = 64

_PAGE_BYTES = 4096
_READ_WRITE, _SHARED, _SHARED_FIXED, _PRIVATE_FIXED = 3, 1, 1 | 16, 2 | 16
_MADV_REMOVE = 9  # Linux

memfd_create = getattr(os, "memfd_create", None)


_functions = None


def _libc():
    """mmap, munmap and madvise. Python's own mmap cannot replace a mapping in place, and holds
    another descriptor for each."""
    global _functions
    if _functions is None:
        import ctypes  # here, since it takes milliseconds

        library = ctypes.CDLL(None, use_errno=True)
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        library.mmap.argtypes = [address, size, number, number, number, ctypes.c_int64]
        library.mmap.restype = address
        library.munmap.argtypes = [address, size]
        library.madvise.argtypes = [address, size, number]
        _functions = ctypes, library
    return _functions


def _map(address, size, flags, fd):
    ctypes, library = _libc()
    found = library.mmap(address, size, _READ_WRITE, flags, fd, 0)
    if found == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


class Mapping:
    """A segment as one process has it mapped."""

    def __init__(self, fd, size):
        self.fd = fd
        self.size = size
        self._addresses = [_map(None, size, _SHARED, fd)]  # taken out by whoever unmaps it

    @property
    def address(self):
        return self._addresses[0]

    def whole(self):
        """A new object that exports the whole of it, and as an object can be watched."""
        return (_libc()[0].c_char * self.size).from_address(self.address)

    def close_fd(self):
        """It is passed, and needs no descriptor any more."""
        if self.fd is not None:
            fd, self.fd = self.fd, None
            os.close(fd)

    def unmap(self):
        """Let go of it; nothing of this process may refer to it any more."""
        try:
            address = self._addresses.pop()
        except IndexError:
            return  # another thread did
        _libc()[1].munmap(address, self.size)
        self.close_fd()


# --- the lender ---


class Loan(Mapping):
    """A segment of our own. It is unmapped when nobody has it any more, since a thread may still be
    in the middle of filling it when the session ends."""

    def __init__(self, number, fd, size):
        super().__init__(fd, size)
        self.number = number
        self.memory = memoryview(self.whole()).cast("B")
        self.carrier = None  # the connection that it was last lent over
        self.free_since = 0.0

    def empty(self):
        """Give its memory back to the system now, though the other end still has it mapped."""
        _libc()[1].madvise(self.address, self.size, _MADV_REMOVE)

    def __del__(self):
        self.unmap()


class Lender:
    """The segments of one session that are ours to lend. From any thread."""

    def __init__(self, keep_bytes=None):
        self._keep_bytes = keep_share() if keep_bytes is None else keep_bytes
        self._lock = threading.RLock()  # what goes back may do so in the middle of anything
        self._free = []  # the one that came back last is the last
        self._lent = {}
        self._next_number = 1
        self._pid = os.getpid()
        self.is_closed = False
        self.forgotten = deque()  # numbers of which the other end is to be told
        _lenders.add(self)

    def take(self, size):
        """A segment of at least this size; raises OSError where the system has no more memory,
        descriptors or room. It is lent until `give_back` or `forget`."""
        with self._lock:
            fitting = [loan for loan in self._free if size <= loan.size <= max_size(size)]
            if fitting:
                loan = min(fitting, key=lambda loan: loan.size)
                self._free.remove(loan)
            elif len(self._lent) >= MOST_LENT:
                raise OSError(errno.EMFILE, "too many segments are lent already")
            else:
                loan = self._create(size_class(size))
            self._lent[loan.number] = loan
            return loan

    def _create(self, size):
        if self.is_closed:
            raise OSError(errno.EPIPE, "the other end has left")
        fd = allocate(size)
        try:
            loan = Loan(self._next_number, fd, size)
        except BaseException:
            os.close(fd)
            raise
        self._next_number += 1
        return loan

    def descriptor(self, number):
        """The descriptor of a segment that the other end does not know yet."""
        loan = self._lent.get(number)
        if loan is None or loan.fd is None:
            raise OSError(errno.EBADF, "there is no segment %d to be passed" % number)
        return loan.fd, loan.size

    def returned(self, number):
        """The other end gives it back, so it has it mapped."""
        with self._lock:
            loan = self._lent.get(number)
            if loan is not None:
                loan.close_fd()
                self.give_back(number)

    def give_back(self, number):
        """Nobody else refers to it any more, or ever did."""
        with self._lock:
            loan = self._lent.pop(number, None)
            if loan is None:
                return
            loan.carrier = None
            loan.free_since = time.monotonic()
            self._free.append(loan)
            excess = sum(loan.size for loan in self._free) - self._keep_bytes
            while excess > 0:
                excess -= self._free[0].size
                self._discard(self._free.pop(0))

    def forget(self, number):
        """Whatever becomes of it at the other end, it is not lent again."""
        with self._lock:
            loan = self._lent.pop(number, None)
            if loan is not None:
                self.forgotten.append(number)

    def forget_carried_by(self, connection):
        """The connection is gone, and perhaps a message with it: who knows whether it came."""
        with self._lock:
            for number, loan in list(self._lent.items()):
                if loan.carrier is connection:
                    self.forget(number)

    def trim(self, now):
        """Give up what has been free for a while; True if some is still kept."""
        with self._lock:
            while self._free and now - self._free[0].free_since >= KEEP_SECONDS:
                self._discard(self._free.pop(0))
            return bool(self._free)

    def _discard(self, loan):
        loan.empty()
        self.forgotten.append(loan.number)

    def close(self):
        """The session is over."""
        with self._lock:
            self.is_closed = True
            for loan in self._free:
                loan.empty()
            self._free, self._lent = [], {}

    def forked(self):
        """In a forked child: they are the parent's."""
        self._lock = threading.RLock()
        self.is_closed = True
        self._free, self._lent = [], {}


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
    fd = _nameless()
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            _fill(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _nameless():
    if memfd_create is not None:
        return memfd_create("spawny", os.MFD_CLOEXEC)
    import tempfile  # here, since it loads much

    for directory in ("/dev/shm", tempfile.gettempdir()):
        if hasattr(os, "O_TMPFILE"):
            try:
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError:
                pass  # no such directory, or not on that file system
        try:
            fd, path = tempfile.mkstemp(prefix="spawny-", dir=directory)
        except OSError:
            continue
        os.unlink(path)
        return fd
    raise OSError(errno.ENOSPC, "no place for a temporary file")


def _fill(fd, size):
    zeros = bytes(1024 * 1024)
    while size > 0:
        size -= os.write(fd, zeros[:size])


# --- the borrower ---


class Borrowed(Mapping):
    """A segment of the other end's."""

    def __init__(self, number, fd, size):
        super().__init__(fd, size)
        self.number = number
        self.watch = None  # the weak reference to what exports it while it is in use
        self.is_private = False  # since a fork
        self.is_forgotten = False


class Borrower:
    """The segments of one session that were lent to us.

    `notify` is called, in the middle of any line of any thread, when one is to be given back.
    """

    def __init__(self, notify):
        self._notify = notify
        self._known = {}
        self.given_back = deque()  # numbers that the lender may lend again
        self.retired = deque()  # numbers that it must forget
        self.is_closed = False

    def knows(self, number):
        """Is it mapped already?"""
        return number in self._known

    def add(self, number, fd, size):
        """Map a segment that was passed; takes the descriptor over. Raises OSError."""
        with _registry_lock:
            try:
                if self.is_closed or number in self._known or os.fstat(fd).st_size < size:
                    raise OSError(errno.EINVAL, "no segment to be borrowed")
                borrowed = Borrowed(number, fd, size)
            except BaseException:
                os.close(fd)
                raise
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
            borrowed.watch = weakref.ref(whole, _Returning(self, borrowed))
        return memoryview(whole).cast("B")

    @property
    def is_full(self):
        """Are so many in use that no more should be?"""
        # (A list made in C: another thread may map one meanwhile.)
        known = list(self._known.values())
        return sum(borrowed.watch is not None for borrowed in known) >= HOLD_SEGMENTS

    def returning(self, borrowed):
        """What exported it is gone; in the middle of any line."""
        borrowed.watch = None
        if self.is_closed or borrowed.is_forgotten:
            self._let_go(borrowed)
        elif borrowed.is_private:
            self._known.pop(borrowed.number, None)
            self._let_go(borrowed)
            self.retired.append(borrowed.number)
            self._notify()
        else:
            self.given_back.append(borrowed.number)
            self._notify()

    def _let_go(self, borrowed):
        _borrowed.discard(borrowed)
        borrowed.unmap()

    def refuse(self, number):
        """It was lent, but will not be used: it could not even be mapped, perhaps."""
        self.forget(number)
        self.retired.append(number)
        self._notify()

    def forget(self, number):
        """The lender has."""
        with _registry_lock:
            borrowed = self._known.pop(number, None)
            if borrowed is not None:
                borrowed.is_forgotten = True
                if borrowed.watch is None:
                    self._let_go(borrowed)

    def close(self):
        """The session is over; what is in use stays until it is not."""
        self.is_closed = True
        for number in list(self._known):
            self.forget(number)


class _Returning:
    """The callback of a weak reference, without a reference cycle of its own."""

    __slots__ = ("_borrowed", "_borrower")

    def __init__(self, borrower, borrowed):
        self._borrower = borrower
        self._borrowed = borrowed

    def __call__(self, reference):
        self._borrower.returning(self._borrowed)


# --- both ---


class Segments:
    """Both directions of one session, as one of its ends has them.

    `notify` is called when the other end is to be told of something, in the middle of any line of
    any thread; `on_kept` when segments are kept for the next message, and `trim` is to be called
    every now and then until it says that none is.
    """

    def __init__(self, can_lend, notify, on_kept):
        self.lender = Lender() if can_lend else None
        self.borrower = Borrower(notify)
        self._notify = notify
        self._on_kept = on_kept
        self._is_trimmed = False

    def news(self):
        """What the other end is to be told, pickled: the body of a SEGMENTS frame."""
        borrower = self.borrower
        forgotten = _all_of(self.lender.forgotten) if self.lender is not None else []
        fields = _all_of(borrower.given_back), _all_of(borrower.retired), forgotten
        return pickle.dumps(fields, 2)

    def heard(self, body):
        """What the other end tells."""
        given_back, retired, forgotten = pickle.loads(body)
        if self.lender is not None:
            for number in retired:
                self.lender.forget(number)
            for number in given_back:
                self.lender.returned(number)
            if given_back and not self._is_trimmed:
                self._is_trimmed = True
                self._on_kept()
            self._tell_forgotten()
        for number in forgotten:
            self.borrower.forget(number)

    def trim(self):
        """Give up what was not used for a while; True if there is something left to be trimmed."""
        if self.lender is not None:
            self._is_trimmed = self.lender.trim(time.monotonic())
            self._tell_forgotten()
        return self._is_trimmed

    def _tell_forgotten(self):
        if self.lender.forgotten:
            self._notify()

    def connection_is_over(self, connection):
        """What was sent over it may never have come."""
        if self.lender is not None:
            self.lender.forget_carried_by(connection)
            self._tell_forgotten()

    def close(self):
        """The session is over."""
        if self.lender is not None:
            self.lender.close()
        self.borrower.close()


def _all_of(numbers):
    found = []
    while numbers:
        found.append(numbers.popleft())
    return found


# --- fork ---

_lenders = weakref.WeakSet()
# All that is mapped. Held here: the collector would not call back a weak reference that is garbage
# together with what it refers to.
_borrowed = set()
_registry_lock = threading.RLock()


def _before_fork():
    _registry_lock.acquire()
    for borrowed in list(_borrowed):
        if borrowed.watch is not None and not borrowed.is_private:
            # In its place and in one step: the pages are the same, and each process gets its own
            # copy of one when it writes to it. Nothing that another thread writes is lost.
            _map(borrowed.address, borrowed.size, _PRIVATE_FIXED, borrowed.fd)
            borrowed.is_private = True
            if borrowed.watch is None:  # given back meanwhile: it will be lent again
                _map(borrowed.address, borrowed.size, _SHARED_FIXED, borrowed.fd)
                borrowed.is_private = False


def _after_in_parent():
    _registry_lock.release()


def _after_in_child():
    global _registry_lock
    _registry_lock = threading.RLock()
    for lender in list(_lenders):
        lender.forked()
    for borrowed in list(_borrowed):
        borrowed.is_forgotten = True  # the parent gives it back
        if borrowed.watch is None:
            _borrowed.discard(borrowed)
            borrowed.unmap()


at_fork(_before_fork, _after_in_parent, _after_in_child)
