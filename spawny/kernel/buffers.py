"""A pickle and the large buffers that travel beside it; the same file on both ends.

Such a body (flag WITH_BUFFERS) is a head, `<IIQ`: how many buffers, zero, bytes of the pickle; for
each buffer an entry, `<QQQ`: number of the segment that it lies in, offset there, bytes; the
pickle; and then the buffers that lie in no segment, with the number 0 and their offset in the body.

Arrays of numpy are pickled our own way: by a name that every version of numpy has, whatever their
strides and type, and out of band for Pythons before 3.8 too, whose pickle knows no buffers.
"""

import collections
import copyreg
import functools
import io
import operator
import pickle
import socket
import struct
import sys
import weakref
from importlib.machinery import PathFinder

# Up to here copying a buffer through the socket costs less than the care for a segment. Measured on
# one machine, an argument: 64 KB 131 us in the pickle and 290 in a segment, 128 KB 201 and 188,
# 256 KB 664 and 207.
LEAST_BYTES = 128 * 1024

# What is kept of one message keeps the whole segment. So a larger buffer has one of its own, and
# smaller ones share it up to this; but a message has not many more than so many segments.
SHARED_BYTES = 1024 * 1024
MANY_SEGMENTS = 32

# As the fastest instructions want their data to lie.
ALIGNMENT = 64

_HEAD = struct.Struct("<IIQ")
_ENTRY = struct.Struct("<QQQ")


@functools.lru_cache(maxsize=None)
def can_borrow():
    """Does this interpreter know exactly when nothing refers to a segment any more, and can it be
    handed one at all? PyPy finds out late, and its objects would keep the memory till then."""
    return (
        sys.implementation.name == "cpython"
        and hasattr(socket, "SCM_RIGHTS")
        and hasattr(socket.socket, "recvmsg")
        and ("ctypes" in sys.modules or PathFinder.find_spec("_ctypes") is not None)
    )


# What has seen the end of a use of a segment, and was not dealt with yet (see `borrower.py`): as a
# rule nothing. An interrupt may have kept somebody from it; so those who carry requests look here.
due = collections.deque()

HAS_BUFFERS = sys.version_info >= (3, 8)
BUFFER_PROTOCOL = 5


def dumps(obj, protocol):
    """(pickle, buffers that belong to it) of `obj`; buffers are memoryviews of bytes or arrays."""
    numpy = sys.modules.get("numpy")
    # What has no large buffer goes the short way: with a pickler of its own a small message would
    # take another microsecond.
    if numpy is None or not _shows_array(obj, getattr(numpy, "ndarray", None)):
        try:
            if protocol < BUFFER_PROTOCOL:
                pickled = pickle.dumps(obj, protocol)
            else:
                pickled = pickle.dumps(obj, protocol, buffer_callback=_small_only)
        except (_TooLarge, ValueError):
            pass  # the latter, of some records, is no matter to the other way
        else:
            if numpy is None or _NUMPY not in pickled:
                return pickled, ()
    file = io.BytesIO()
    collector = Collector(protocol)
    collector.pickler(pickle.Pickler, file).dump(obj)
    return file.getvalue(), collector.buffers


_NUMPY = b"numpy"


class _TooLarge(Exception):
    """A buffer is to travel beside the pickle."""


def _small_only(buffer):
    if buffer.raw().nbytes >= LEAST_BYTES:
        raise _TooLarge
    return True


def _shows_array(obj, ndarray):
    """Is it an array, or one of the arguments of a request?"""
    kind = type(obj)
    if kind is not tuple:
        return kind is ndarray
    for each in obj:
        kind = type(each)
        if kind is ndarray:
            return True
        if kind is tuple:
            for argument in each:
                if type(argument) is ndarray:
                    return True
    return False


class Collector:
    """Collects the buffers of one message while it is pickled."""

    __slots__ = ("_protocol", "_sources", "buffers")

    def __init__(self, protocol):
        self._protocol = protocol
        self._sources = {}
        self.buffers = []

    def pickler(self, kind, file):
        """A pickler of that kind, the buffers of which come here."""
        if self._protocol < BUFFER_PROTOCOL:
            pickler = kind(file, self._protocol)
        else:
            pickler = kind(file, self._protocol, buffer_callback=self.take)
        numpy = sys.modules.get("numpy")
        if hasattr(numpy, "memmap"):  # it may be on its way
            # In place of the table that a pickler has of itself: CloudPickler's own, or copyreg's.
            is_plain = kind is pickle.Pickler
            table = dict(copyreg.dispatch_table if is_plain else _table_of(pickler))
            reduce = self._reduce_array
            table.setdefault(numpy.ndarray, reduce)
            table.setdefault(numpy.memmap, reduce)
            table.setdefault(numpy.void, _reduce_record)
            if self._protocol < BUFFER_PROTOCOL:
                table[_Later] = _reduce_later
            pickler.dispatch_table = table
        return pickler

    def take(self, buffer):
        """The `buffer_callback`: true for what is to be in the pickle itself."""
        source = self._sources.pop(id(buffer), None)
        if source is None:
            source = buffer.raw()
            if source.nbytes < LEAST_BYTES:
                return True
        self.buffers.append(source)
        return False

    def _reduce_array(self, array):
        ndarray = sys.modules["numpy"].ndarray
        dtype = array.dtype
        # (More than its bytes: objects, or strings of any length.)
        if dtype.hasobject or dtype.kind not in "biufcmMSUV" or not dtype.itemsize:
            return ndarray.__reduce__(array)
        order = _order(array)
        if array.nbytes >= LEAST_BYTES:
            data = self._out_of_band(array)
        elif array.flags.writeable or self._protocol < BUFFER_PROTOCOL:
            data = bytearray(array.tobytes(order))
        else:
            data = array.tobytes(order)
        return ndarray, (array.shape, dtype, data, 0, None, order)

    def _out_of_band(self, array):
        if self._protocol < BUFFER_PROTOCOL:
            self.buffers.append(array)
            return _Later(len(self.buffers) - 1)
        # What pickle sees is a stand-in: it takes no array of dates, nor one in strides, and that
        # would be copied twice.
        stand_in = bytearray() if array.flags.writeable else b""
        buffer = pickle.PickleBuffer(stand_in)
        self._sources[id(buffer)] = array
        return buffer


def _table_of(pickler):
    return getattr(pickler, "dispatch_table", copyreg.dispatch_table)


def _reduce_record(record):
    numpy = sys.modules["numpy"]
    try:
        return numpy.void.__reduce__(record)
    except ValueError:  # before 1.20 numpy gives no bytes of one that has a date in it
        return operator.getitem, (numpy.array(record), ())


class _Later:
    """A buffer in a pickle of a protocol that knows none."""

    __slots__ = ("index",)

    def __init__(self, index):
        self.index = index


def take(index):
    """Stands in a pickle for a buffer beside it; an `Unpickler` puts that in its place."""
    raise pickle.UnpicklingError("a buffer is missing")


# The name under which both ends have it: pickle takes no function that it cannot import.
TAKE_MODULE, TAKE_NAME = "_spawny_kernel_buffers", "take"
_named = sys.modules.setdefault(TAKE_MODULE, sys.modules[__name__])
if _named is sys.modules[__name__]:
    take.__module__ = TAKE_MODULE


def _reduce_later(later):
    return _named.take, (later.index,)


class Unpickler(pickle.Unpickler):
    """Loads a pickle with its buffers."""

    def __init__(self, pickled, buffers=()):
        if HAS_BUFFERS:
            super().__init__(io.BytesIO(pickled), buffers=buffers)
        else:
            super().__init__(io.BytesIO(pickled))
        self._beside = buffers  # (`_buffers` is PyPy's own)

    def find_class(self, module, name):
        if module == TAKE_MODULE and name == TAKE_NAME:
            return self._beside.__getitem__
        find_class = super().find_class
        try:
            return find_class(module, name)
        except (ImportError, AttributeError):
            from . import names  # which few daemons need

            found = names.find_moved(find_class, module, name)
            if found is names.NOWHERE:
                raise
            return found


def loads(pickled):
    """What a pickle without buffers holds, whatever its names are here."""
    try:
        return pickle.loads(pickled)
    except (ImportError, AttributeError):
        return Unpickler(pickled).load()


class Parts:
    """A frame or the body of one, in pieces; `header + parts` puts bytes in front."""

    __slots__ = ("__weakref__", "_loans", "pieces", "size", "weight")

    def __init__(self):
        self.pieces = []
        self.size = 0
        self.weight = 0  # in bytes, what lies in segments included
        self._loans = []

    def __len__(self):
        return self.size

    def __radd__(self, data):
        self.pieces[0] = data + self.pieces[0]
        self.size += len(data)
        return self

    def add_loan(self, loan):
        """This segment belongs to it: a part of what it says lies there."""
        self._loans.append(loan)

    def append(self, frame):
        """Put a whole frame behind."""
        self.pieces += [frame] if type(frame) is bytes else frame.pieces
        self.size += len(frame)
        if type(frame) is Parts:
            for loan in frame._loans:
                loan.holder = weakref.ref(self)
            self._loans += frame._loans

    def freeze(self):
        """Copy what it only refers to, as its owner may change that before it is sent."""
        self.pieces = [bytes(piece) for piece in self.pieces]

    def goes_over(self, connection):
        """It is about to be sent over this connection. Said before, since who is interrupted after
        cannot know whether it went: such a connection is given up, and its segments with it."""
        for loan in self._loans:
            loan.lend(connection)


def join(frames):
    """The same frames, to be sent at once."""
    if all(type(each) is bytes for each in frames):
        return b"".join(frames)
    joined = Parts()
    for each in frames:
        joined.append(each)
    return joined


def pack(pickled, buffers, lender, hand_over):
    """The `Parts` of a body. `hand_over(loan)` says whether the other end has a segment that it did
    not know. With `lender` None, or where there is no memory to lend, all goes through the socket.
    """
    entries = [None] * len(buffers)
    parts = Parts()
    if lender is not None:
        for group in _groups(buffers):
            if not _lend(group, buffers, entries, parts, lender, hand_over):
                break
    end = _HEAD.size + len(buffers) * _ENTRY.size + len(pickled)
    inline = []
    for index, entry in enumerate(entries):
        if entry is None:
            source = _as_bytes(buffers[index])
            start = -(-end // ALIGNMENT) * ALIGNMENT
            inline += [bytes(start - end), source]
            entries[index] = 0, start, source.nbytes
            end = start + source.nbytes
    head = b"".join(
        [_HEAD.pack(len(buffers), 0, len(pickled))] + [_ENTRY.pack(*entry) for entry in entries]
    )
    parts.pieces = [head + pickled] + inline
    parts.size = end
    parts.weight = len(pickled) + sum(buffer.nbytes for buffer in buffers)
    return parts


def _groups(buffers):
    """Lists of the indexes of buffers that share a segment."""
    shared_bytes = max(SHARED_BYTES, sum(each.nbytes for each in buffers) // MANY_SEGMENTS)
    group, size = [], 0
    for index, buffer in enumerate(buffers):
        if buffer.nbytes >= shared_bytes:
            yield [index]
            continue
        group.append(index)
        size += buffer.nbytes
        if size >= shared_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _lend(group, buffers, entries, parts, lender, hand_over):
    """Put these buffers into a segment; False where there is none to be had."""
    offsets, size = [], 0
    for index in group:
        offsets.append(size)
        size += -(-buffers[index].nbytes // ALIGNMENT) * ALIGNMENT
    try:
        loan = lender.take(size, parts)
    except (OSError, MemoryError):
        return False
    if loan.descriptors and not hand_over(loan):
        lender.forget(loan.number)
        return False
    parts.add_loan(loan)
    for index, offset in zip(group, offsets):
        buffer = buffers[index]
        _copy(buffer, loan.memory[offset : offset + buffer.nbytes])
        entries[index] = loan.number, offset, buffer.nbytes
    return True


def _copy(buffer, target):
    if type(buffer) is memoryview:
        target[:] = buffer
        return
    numpy = sys.modules["numpy"]
    numpy.ndarray(buffer.shape, buffer.dtype, target, order=_order(buffer))[...] = buffer


def _as_bytes(buffer):
    if type(buffer) is memoryview:
        return buffer
    numpy = sys.modules["numpy"]
    flat = numpy.ravel(buffer, _order(buffer))  # a copy only of one in strides
    return memoryview(flat.view(numpy.uint8))


def _order(array):
    return "F" if array.flags.fnc else "C"


def _counts(body):
    """(count of the buffers, length of the pickle); a count that cannot be is not counted up to,
    for which PyPy would make room first."""
    count, _, pickle_bytes = _HEAD.unpack_from(body)
    if count * _ENTRY.size > len(body) - _HEAD.size:
        raise LookupError("garbage where buffers should be told of")
    return count, pickle_bytes


def unpack(body, borrower, fetch):
    """(pickle, buffers) of a body. `fetch(number)` gets hold of a segment that is not known here.

    Raises OSError or MemoryError where this process can have no more memory or descriptors,
    LookupError or struct.error for garbage.
    """
    count, pickle_bytes = _counts(body)
    entries = [_ENTRY.unpack_from(body, _HEAD.size + i * _ENTRY.size) for i in range(count)]
    begin = _HEAD.size + count * _ENTRY.size
    pickled = memoryview(body)[begin : begin + pickle_bytes]
    view = memoryview(body)
    if view.readonly and any(not number for number, _, _ in entries):
        view = memoryview(bytearray(view))  # whoever gets what lies in it may change it
    segments = {0: view}
    copies = {0: False}
    buffers = []
    try:
        for number, offset, size in entries:
            if number not in segments:
                if not borrower.knows(number):
                    fetch(number)
                copies[number] = borrower.is_full
                segments[number] = borrower.borrow(number)
            buffer = segments[number][offset : offset + size]
            buffers.append(bytearray(buffer) if copies[number] else buffer)
    except BaseException:
        for number in {entry[0] for entry in entries}.difference(segments):
            borrower.refuse(number)
        raise
    return pickled, buffers


def refuse(body, borrower):
    """The body is not wanted: what it borrows goes back."""
    count, _ = _counts(body)
    for index in range(count):
        number, _, _ = _ENTRY.unpack_from(body, _HEAD.size + index * _ENTRY.size)
        if number:
            borrower.refuse(number)
