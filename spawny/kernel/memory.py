"""Memory without a name that two processes can have mapped, and its descriptors.

The one rule: what the system gives goes into the list that owns it within one call of C, and so it
is given back. An interrupt comes between two lines of Python, never there.
"""

import errno
import os
from collections import deque

_READ_WRITE = 3
SHARED, PRIVATE_FIXED = 1, 2 | 16  # the flags of mmap

memfd_create = getattr(os, "memfd_create", None)

_functions = None


def libc():
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


def map_memory(address, size, flags, fd):
    """Map it there, or (None) anywhere: a list of the address. Raises OSError."""
    ctypes, library = libc()
    found = []
    found.extend(map(library.mmap, [address], [size], [_READ_WRITE], [flags], [fd], [0]))
    if found[0] == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def at_once(function, taken, *others):
    """Call a C function with all that is in this list, taking it out: each is taken and used
    within C, where no interrupt comes in between, which would lose it, and no other thread."""
    try:
        deque(map(function, iter(taken.pop, None), *others), 0)
    except IndexError:
        pass  # it is empty


class Descriptors(list):
    """One descriptor, or none any more; closed with its last owner. It gets into such a list within
    C, too, as in `at_once`."""

    def close(self):
        """Whoever is to have it has it."""
        at_once(os.close, self)

    __del__ = close


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
