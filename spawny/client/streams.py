"""Iteration over remote objects: items come in growing chunks where that cannot be noticed.

What was fetched ahead belongs to the remote iterator, not to a loop: everything that asks the
iterator's proxy for its next item shares it, and it is put back before the iterator is used in any
other way. The daemon decides who may be read ahead at all, see `kernel/streams.py`.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator

from ..kernel import wire
from .failures import remote_exception
from .proxy import ObjectProxy, Reference, reference_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The most items that one round trip brings: one at first, since many a generator is asked for its
# first item only; then growing, with no thought but for how many are used.
CHUNK_GROWTH, CHUNK_MOST = 4, 8192

# An item is not made longer than this before it is wanted.
READ_AHEAD_SECONDS = 0.001

# Once items have had to wait for a slow one behind them, so many must come quickly, each by itself,
# before they come in chunks again; twice as many the next time.
WARY_ITEMS = 16

# The iterators of built-in collections compute nothing: their first chunk is larger.
COLLECTION_ITEMS = 32
COLLECTION_ITERATORS = re.compile(
    "(list|tuple|dict_(key|value|item)|set|range|str|str_ascii|bytes|bytearray|sequence)_?iterator"
)


class Chunk(deque):  # type: ignore[type-arg]
    """Items that were fetched and not used yet."""

    received = 0  # items that came from this iterator until now
    ending: BaseException | None = None  # what it ended with after them


class Stream:
    """The near end of an iterator in a daemon. Any number of threads may share it."""

    __slots__ = ("_is_hidden", "_lock", "_most", "_reference", "_wary", "_wary_left", "chunk")

    def __init__(self, reference: Reference, *, is_hidden: bool) -> None:
        remote_type = reference.remote_type
        is_collection = bool(
            is_hidden
            and remote_type.module == "builtins"
            and COLLECTION_ITERATORS.fullmatch(remote_type.qualname)
        )
        self._reference = reference
        self._is_hidden = is_hidden
        self._most = COLLECTION_ITEMS if is_collection else 1
        self._wary, self._wary_left = WARY_ITEMS, 0
        # Not plain: a callback of the iterator's may ask for its next item, and is told off there.
        self._lock = threading.RLock()
        self.chunk = Chunk()

    def next_item(self) -> Any:
        """The next item, or the exception that stands in its place raised."""
        try:
            return self.chunk.popleft()
        except IndexError:
            pass
        with self._lock:
            if self.chunk:  # another thread was quicker
                return self.chunk.popleft()
            if self.chunk.ending is None:
                chunk = self._fetch()
                # Seen by others, and counted as received, with one assignment: whenever Ctrl-C
                # comes, either all of it is here or the daemon gives it again.
                if chunk:
                    item = chunk.popleft()
                    self.chunk = chunk
                    return item
                self.chunk = chunk
            raise self._take_ending()

    def _take_ending(self) -> BaseException:
        ending, self.chunk.ending = self.chunk.ending, None
        assert ending is not None
        return ending

    def _fetch(self) -> Chunk:
        reference, received = self._reference, self.chunk.received
        items, (failure, has_returned, is_late) = reference.ask(
            wire.NEXT, max(self._most, 1), READ_AHEAD_SECONDS, received, self._is_hidden
        )
        ending: BaseException | None = None
        if has_returned:
            value = items.pop()
            ending = StopIteration() if value is None else StopIteration(value)
        elif failure is not None:
            ending = remote_exception(failure)
        chunk = Chunk(items)
        chunk.received = received + len(items)
        chunk.ending = ending
        self._grow(len(items), is_late)
        return chunk

    def _grow(self, came: int, is_late: bool) -> None:
        if self._most == 0:
            return
        if is_late:
            self._wary *= 2
            self._most, self._wary_left = 1, self._wary
        elif self._wary_left:
            self._wary_left -= 1
        elif came >= self._most:
            self._most = min(self._most * CHUNK_GROWTH, CHUNK_MOST)

    def put_back(self) -> None:
        """Give back what was not used, and fetch one item at a time from now on: something else
        than asking for the next item is about to happen to the iterator."""
        with self._lock:
            self._most = 0
            chunk = self.chunk
            if chunk or chunk.ending is not None:
                used = chunk.received - len(chunk)
                reference = self._reference
                reference.ask(wire.PUTBACK, used)
                self.chunk = Chunk()
                self.chunk.received = used


class RemoteIterator:
    """What `iter()` makes of a proxy: an iterator in the daemon that only its loop knows."""

    __slots__ = ("_iterated", "_proxy", "_stream")

    def __init__(self, iterated: ObjectProxy, proxy: ObjectProxy, stream: Stream) -> None:
        # As Python's own keep what they iterate over until they are exhausted.
        self._iterated: ObjectProxy | None = iterated
        self._proxy = proxy  # which keeps the remote iterator alive
        self._stream = stream

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        try:
            return self._stream.next_item()
        except StopIteration:
            self._iterated = None
            raise


def iterate(self: ObjectProxy) -> Iterator[Any]:
    """`iter(proxy)`."""
    return _iterate(self, "__iter__")


def iterate_backwards(self: ObjectProxy) -> Iterator[Any]:
    """`reversed(proxy)`."""
    return _iterate(self, "__reversed__")


def _iterate(self: ObjectProxy, name: str) -> Iterator[Any]:
    reference: Reference = reference_of(self)
    # Now, not at the first next(): what is not iterable must say so to iter() itself.
    proxy = reference.operate(name, (), wire.KEEP)
    iterator: Reference = reference_of(proxy)
    if iterator.count > 1 or iterator.stream is not None or not hasattr(type(proxy), "__next__"):
        return proxy  # type: ignore[no-any-return]  # others have it, too, or it is none
    return RemoteIterator(self, proxy, Stream(iterator, is_hidden=True))


def iterate_itself(self: ObjectProxy) -> ObjectProxy:
    return self


def next_item(self: ObjectProxy) -> Any:
    """`next(proxy)` of an iterator."""
    reference: Reference = reference_of(self)
    stream = reference.stream
    if stream is None:
        with _making:
            if reference.stream is None:
                reference.stream = Stream(reference, is_hidden=False)
        stream = reference.stream
    return stream.next_item()


# Held for the making of a stream alone, where two threads must not make two.
_making = threading.Lock()


def iterator_attribute(
    get: Callable[[ObjectProxy, str], Any],
) -> Callable[[ObjectProxy, str], Any]:
    """The `__getattribute__` of iterators' proxies, from that of all."""

    def getattribute(self: ObjectProxy, name: str) -> Any:
        reference: Reference = reference_of(self)
        if reference.stream is not None and name != "__class__":
            reference.stream.put_back()
        return get(self, name)

    return getattribute
