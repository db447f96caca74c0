"""The channels of one session: who may use which, and how there come to be more.

The one rule: a channel belongs to one request at a time. A thread's request comes after the one-way
calls that it has made, so it takes the channel that carries these; a request made by a callback
goes where the call goes that the callback is of. Else it takes a free one, or a new one.
"""

from __future__ import annotations

import threading
import weakref

from ..kernel import wire
from .channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Pool:
    """`make` opens one more; a daemon takes any number."""

    def __init__(self, make: Callable[[], Channel]) -> None:
        self._make = make
        self.free: list[Channel] = []
        # Weakly: one that an interrupt takes from a thread between two lines is closed by its end.
        self._open: weakref.WeakValueDictionary[int, Channel] = weakref.WeakValueDictionary()
        self.nested: dict[int, Channel] = {}  # thread -> whose callback it runs, see callbacks.py
        # thread -> the channel of its one-way calls; its next request takes it, to come after them.
        # None where that was given up: then it takes a new one, which the daemon reads after that.
        self.oneways: dict[int, Channel | None] = {}

    def add(self, channel: Channel) -> None:
        """From now on it counts among ours; it is not free."""
        self._open[id(channel)] = channel

    def open(self) -> list[Channel]:
        """All of them; a list, since other threads may be opening some."""
        found = (reference() for reference in self._open.valuerefs())
        return [channel for channel in found if channel is not None]

    def discard(self, channel: Channel) -> None:
        """Close it."""
        self._open.pop(id(channel), None)
        channel.close()

    @property
    def is_at_rest(self) -> bool:
        """Is no request under way?"""
        carrying = sum(channel is not None for channel in list(self.oneways.values()))
        return len(self.free) + carrying == len(self._open)

    # --- for requests of this thread ---

    def nested_here(self) -> Channel | None:
        """That of the call whose callback this thread runs, if it does."""
        channel = self.nested.get(threading.get_ident())
        if channel is not None:
            from ..kernel.callbacks import need_room

            need_room()
        return channel

    def borrow(self) -> tuple[Channel, int]:
        """A channel for several requests, and the flags that these need on it."""
        nested = self.nested_here()
        if nested is not None:
            nested.is_in_step = False
            return nested, wire.NESTED
        return self.after_oneways(), 0

    def after_oneways(self) -> Channel:
        """A channel on which a request comes after the one-way calls of this thread."""
        try:
            return self.oneways.pop(threading.get_ident()) or self._make()
        except KeyError:
            return self._take()

    def for_oneways(self) -> Channel:
        """The one that carries those of this thread."""
        ident = threading.get_ident()
        channel = self.oneways.get(ident)
        if channel is None:
            channel = self.oneways[ident] = self.after_oneways()
            channel.carries_oneways = True
        return channel

    def gave_up(self, channel: Channel | None) -> None:
        """What this thread sent over it last may have come or not."""
        if channel is not None and channel.carries_oneways:
            self.oneways[threading.get_ident()] = None

    def _take(self) -> Channel:
        try:
            return self.free.pop()
        except IndexError:
            return self._make()

    # --- its end ---

    def empty(self) -> list[Channel]:
        """Have nothing that could be used; what was at rest."""
        left = [*self.free, *filter(None, list(self.oneways.values()))]
        self.free.clear()
        self.oneways.clear()
        return left

    def forked(self) -> None:
        """In a forked child: the connections are the parent's, and so are its answers."""
        for channel in self.open():
            channel.close()
        self._open.clear()
        self.empty()
        self.nested.clear()
