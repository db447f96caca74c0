"""What iterators give, in chunks where fetching ahead cannot be noticed.

The one rule: a client must see what it would see if each item were fetched by itself. So an
iterator is read ahead only if nobody else holds it, and a generator only where it stands at a
`yield` whose value it does not use: it would go on from there in the same way whatever it was sent.
Items that user code gives are pickled at once, since that code may change them for the next one;
what goes as a reference cannot be kept as it is, and ends the chunk.

The last chunk is kept until the client asks for the next one. An answer that got lost, in a Ctrl-C
as a rule, is thereby given again; and a client that wants to do something else with an iterator
puts back what it has not used.
"""

import collections
import collections.abc
import itertools
import opcode
import operator
import sys
import types
import weakref
from time import monotonic

from .answers import Frozen
from .elements import ATOMS
from .objects import Export

# A chunk ends when its items are larger than this.
CHUNK_BYTES = 1024 * 1024

# So much time between two items of a chunk, and the client is told that the first ones had to wait.
LATE_SECONDS = 0.01

# From collections so many items are taken at once, between looks at the size.
BATCH_ITEMS = 64


class Chunk:
    """What one NEXT has brought out of an iterator."""

    __slots__ = ("session", "start", "items", "ending", "is_late", "most_next")

    def __init__(self, session, start):
        self.session = session
        self.start = start  # items that the client had before
        self.items = []
        self.ending = None  # the exception after the items, StopIteration as a rule
        self.is_late = False
        self.most_next = sys.maxsize

    def weigh(self, size):
        """Its answer has so many bytes; if they are too many, the next one has fewer items."""
        if size > CHUNK_BYTES and self.items:
            self.most_next = max(1, CHUNK_BYTES * len(self.items) // size)


def fetch(export, session, is_shared, most, seconds, received, is_hidden, freeze):
    """The next chunk of an export's iterator, for a client that has `received` so many items.

    `freeze(item)` gives it as it is now, or None where the client gets a reference to it.
    """
    chunk = export.chunk
    if chunk is not None:
        if chunk.session is session and chunk.start == received and chunk.items:
            return chunk
        most = min(most, chunk.most_next)
    may_go_on = None if is_shared else _permission(export, is_hidden)
    iterator = export.obj
    chunk = export.chunk = Chunk(session, received)
    try:
        if may_go_on is _from_collection:
            _collect_quickly(iterator, chunk, most)
        else:
            _collect(iterator, chunk, most, seconds, may_go_on, freeze)
    except StopIteration as end:
        chunk.ending = end
    except BaseException as error:
        if issubclass(type(error), KeyboardInterrupt) or not chunk.items:
            raise
        chunk.ending = error
    return chunk


def _collect(iterator, chunk, most, seconds, may_go_on, freeze):
    began = before = monotonic()
    size = 0
    while True:
        item = next(iterator)
        chunk.items.append(item)
        if may_go_on is None:
            return
        now = monotonic()
        if now - before > LATE_SECONDS and len(chunk.items) > 1:
            chunk.is_late = True
        if len(chunk.items) >= most or now - began > seconds or not may_go_on(iterator):
            return
        before = now
        kind = type(item)
        if kind not in ATOMS:
            item = freeze(item)
            if item is None:
                return  # what it is, such as an open file, may not outlast the next step
            chunk.items[-1] = item
            size += len(item.pickled) if type(item) is Frozen else 0
        elif kind is str or kind is bytes:
            size += len(item)
        if size > CHUNK_BYTES:
            return


def _collect_quickly(iterator, chunk, most):
    """From an iterator that runs no user code."""
    if type(iterator) not in _FIXED_ITERATORS:
        # Its end is not taken along with items: it may grow, or complain that it changed, until
        # the client gets there.
        most = min(most, max(1, operator.length_hint(iterator, most)))
    size = 0
    items = chunk.items
    while len(items) < most and size < CHUNK_BYTES:
        start, wanted = len(items), min(BATCH_ITEMS, most - len(items))
        items.extend(itertools.islice(iterator, wanted))
        if len(items) - start < wanted:
            raise StopIteration
        size += sum(len(item) for item in items[start:] if type(item) in _SIZED)


_SIZED = frozenset([str, bytes, bytearray])


# --- who may be read ahead ---


class _Sequence:
    def __getitem__(self, index):
        raise IndexError


# What iter() falls back to runs user code; PyPy has the same iterator for lists and the like.
_FALLBACK = type(iter(_Sequence()))

_FIXED_ITERATORS = tuple(
    each
    for each in {type(iter(one)) for one in ((), "", "\u20ac", b"", range(0), range(1 << 70))}
    if each is not _FALLBACK
)
_MUTABLE_ITERATORS = tuple(
    each
    for each in {
        type(iter(one))
        for one in (
            [{}, {}.values(), {}.items(), [], reversed([]), set(), bytearray()]
            + [collections.deque(), reversed(collections.deque())]
            + [collections.OrderedDict(), collections.OrderedDict().items()]
            + ([reversed({}), reversed({}.items())] if hasattr(dict, "__reversed__") else [])
        )
    }
    if each is not _FALLBACK
)

# A group of groupby ends when groupby goes on to the next.
_NEVER = (itertools.groupby, type(next(itertools.groupby("a"))[1]))

_WRAPPERS = (map, filter, zip, enumerate, reversed) + tuple(
    each
    for each in vars(itertools).values()
    if isinstance(each, type) and hasattr(each, "__next__") and each not in _NEVER
)


def _permission(export, is_hidden):
    """What to ask after each item whether the next may be fetched, too; None for never.

    Of an iterator that is hidden its client has made it by iter(), and does nothing but next().
    """
    is_alone = _is_alone(export)
    kind = type(export.obj)
    if is_alone is False or kind in _NEVER:
        return None
    if _is_from_collection(export.obj):
        return _from_collection
    if kind in _WRAPPERS or (is_hidden and is_alone):
        return _always
    if kind is types.GeneratorType:
        return _always if _plain_yields(export.obj.gi_code) is ALL else _stands_at_plain_yield
    return None


def _is_from_collection(iterator):
    kind = type(iterator)
    if kind is _FALLBACK:
        return type(iterator.__reduce__()[1][0]) in (list, tuple, str, bytes, bytearray)
    return kind in _FIXED_ITERATORS or kind in _MUTABLE_ITERATORS


def _from_collection(iterator):
    return True


def _always(iterator):
    return True


def _is_alone(export):
    """Does nothing in this process refer to the iterator but the export? None if unknown."""
    return None if _ALONE is None else sys.getrefcount(export.obj) <= _ALONE


_ALONE = None
if hasattr(sys, "getrefcount"):
    _sample = Export(object())
    _ALONE = sys.getrefcount(_sample.obj)


def _stands_at_plain_yield(generator):
    """Would the generator go on in the same way whatever it was sent?"""
    while type(generator) is types.GeneratorType:
        inner = generator.gi_yieldfrom
        if inner is None:
            plain = _plain_yields(generator.gi_code)
            frame = generator.gi_frame
            return plain is ALL or (frame is not None and frame.f_lasti in plain)
        if _ALONE is not None and sys.getrefcount(inner) > _DELEGATED:
            return False
        generator = inner
    return _is_from_collection(generator) or type(generator) in _WRAPPERS


ALL = frozenset([-1])  # no `yield` of the code gives a value that is used, and none delegates
_known_codes = weakref.WeakKeyDictionary()


def _plain_yields(code):
    """Where `f_lasti` stands while the code waits in a `yield` whose value is thrown away."""
    known = _known_codes.get(code)
    if known is None:
        known = _known_codes[code] = _find_plain_yields(code.co_code)
    return known


def _find_plain_yields(code):
    # Two bytes an instruction since 3.6; what follows some as a cache has the number of none.
    names = [opcode.opname[code[index]] for index in range(0, len(code), 2)]
    plain, is_all = set(), True
    for index, name in enumerate(names):
        if name not in ("YIELD_VALUE", "YIELD_FROM", "SEND"):
            continue
        following = index + 1
        while following < len(names) and names[following] in _FILLERS:
            following += 1
        if name == "YIELD_VALUE" and names[following : following + 1] == ["POP_TOP"]:
            # Since 3.13 f_lasti is that of the instruction to go on with.
            plain.update((2 * index, 2 * index + 2))
        else:
            is_all = False
    return ALL if is_all else frozenset(plain)


_FILLERS = ("RESUME", "NOP", "CACHE", "EXTENDED_ARG")


def _count_delegated():
    def outer():
        yield from (each for each in (1, 2))

    generator = outer()
    next(generator)
    inner = generator.gi_yieldfrom
    return sys.getrefcount(inner)


# How often an iterator is referred to that nobody knows but the generator that delegates to it.
_DELEGATED = None if _ALONE is None else _count_delegated()


# --- what was not used ---


def put_back(chunk, used, iterator):
    """An iterator that first gives what its client had of the chunk beyond its `used` items."""
    items = [
        each.item if type(each) is Frozen else each for each in chunk.items[used - chunk.start :]
    ]
    if not items and chunk.ending is None:
        return iterator
    return Rejoined(items, chunk.ending, iterator)


class Rejoined(collections.abc.Generator):
    """An iterator with items put back in front of what it goes on with."""

    def __init__(self, items, ending, iterator):
        self._items = collections.deque(items)
        self._ending = ending
        self._iterator = iterator

    def __next__(self):
        return self.send(None)

    def send(self, value):
        # What it stood at when the item was fetched had no use for the value.
        if self._items:
            return self._items.popleft()
        ending, self._ending = self._ending, None
        if ending is not None:
            raise ending
        return next(self._iterator) if value is None else self._iterator.send(value)

    def throw(self, *error):
        self._items.clear()
        self._ending = None
        return self._iterator.throw(*error)

    def close(self):
        self._items.clear()
        self._ending = None
        self._iterator.close()

    def __getattr__(self, name):
        return getattr(self._iterator, name)
