"""What has to be looked up before it can be decided on, beside the loop; and who waits behind it.

One rule: nothing about a daemon overtakes what came earlier about the same one.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass

from .events import Event

logger = logging.getLogger(__name__)

# One that waits for a broken interpreter keeps no other waiting.
_THREADS = 4


Names = Set[str] | None


@dataclass(slots=True, eq=False)
class _Place:
    """One in the line: about the daemons of these names, or about all (None)."""

    names: Names
    event: Event | None  # None while it is being looked up

    def is_about(self, names: Names) -> bool:
        return self.names is None or names is None or not self.names.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class _Lookup:
    place: _Place
    find: Callable[[], Event]
    otherwise: Callable[[str], Event]


class Lookups:
    """A line of events, some of which threads still work on."""

    def __init__(self) -> None:
        self._line: list[_Place] = []
        self._todo: queue.SimpleQueue[_Lookup | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Place, Event]] = queue.SimpleQueue()
        self._threads = 0
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)

    def fileno(self) -> int:
        """Readable when `take` has something."""
        return self._reader.fileno()

    def has(self, name: str) -> bool:
        """Whether anything about this daemon is in the line."""
        return any(each.is_about({name}) for each in self._line)

    def begin(
        self, names: Names, find: Callable[[], Event], otherwise: Callable[[str], Event]
    ) -> None:
        """Have a thread find an event about these daemons, or all; where that raises, it is what
        `otherwise` makes of the reason."""
        place = _Place(names, None)
        self._line.append(place)
        problem = self._start_thread() if self._threads < min(_THREADS, len(self._line)) else ""
        if problem and not self._threads:
            self._tell(place, otherwise(problem))
        else:
            self._todo.put(_Lookup(place, find, otherwise))

    def hold(self, name: str, event: Event) -> None:
        """Put what needs no looking up behind what does."""
        self._line.append(_Place({name}, event))

    def take(self) -> list[Event]:
        """The events that are found and have nothing before them, in their order."""
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        with suppress(queue.Empty):
            while True:
                place, event = self._done.get_nowait()
                place.event = event
        taken: list[Event] = []
        left: list[_Place] = []
        for each in self._line:
            if each.event is not None and not any(before.is_about(each.names) for before in left):
                taken.append(each.event)
            else:
                left.append(each)
        self._line = left
        return taken

    def close(self) -> None:
        """Forget what is not found yet."""
        self._line.clear()
        for _ in range(self._threads):
            self._todo.put(None)
        self._reader.close()
        self._writer.close()

    def _start_thread(self) -> str:
        """One more, that no end of this process waits for; why there is none."""
        try:
            threading.Thread(target=self._work, name="lookup", daemon=True).start()
        except RuntimeError as error:
            return f"no thread can be started: {error}"
        self._threads += 1
        return ""

    def _work(self) -> None:
        while (lookup := self._todo.get()) is not None:
            try:
                event = lookup.find()
            except Exception as error:
                logger.exception("could not look up what a request needs")
                event = lookup.otherwise(f"the supervisor failed: {error!r}; its log has more")
            self._tell(lookup.place, event)

    def _tell(self, place: _Place, event: Event) -> None:
        self._done.put((place, event))
        with suppress(OSError):  # full, so that it is readable; or closed
            self._writer.send(b"\0")
