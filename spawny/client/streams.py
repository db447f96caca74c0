"""Iteration over remote objects: items come in growing chunks where that cannot be noticed."""

from __future__ import annotations

from collections.abc import Iterator

from ..kernel import wire
from .proxy import ObjectProxy, Reference, reference_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The most items that one round trip of an iteration brings, and how the number grows.
CHUNK_FIRST, CHUNK_GROWTH, CHUNK_MOST = 32, 4, 8192

# An item is not made longer than this before it is wanted.
READ_AHEAD_SECONDS = 0.001


def iterate(self: ObjectProxy) -> Iterator[Any]:
    """The items, fetched in growing chunks where that cannot be noticed."""
    reference: Reference = reference_of(self)
    # Now, not at the first next(): what is not iterable must say so to iter() itself.
    iterator = reference.session.request(wire.OPERATE, (reference.oid, "__iter__", ()), wire.KEEP)
    return _chunks(reference_of(iterator), iterator)


def _chunks(reference: Reference, iterator: ObjectProxy) -> Iterator[Any]:
    most = CHUNK_FIRST
    is_over = False
    while not is_over:
        items, is_over = reference.session.request(
            wire.NEXT, (reference.oid, most, READ_AHEAD_SECONDS)
        )
        yield from items
        most = min(most * CHUNK_GROWTH, CHUNK_MOST)
    del iterator  # until here it kept the remote iterator alive


def iterate_itself(self: ObjectProxy) -> ObjectProxy:
    return self
