"""What the loop waits for: descriptors, each put here by the edge that has it open.

One rule: whoever closes a descriptor drops it first. The system keeps the list (epoll, kqueue), so
that a turn of the loop costs the same however many daemons there are.
"""

from __future__ import annotations

import selectors


class Watch:
    """Descriptors that are watched for reading, and some for writing as well."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """Readable when `ready` has something."""
        return self._selector.fileno()

    def put(self, fd: int, *, writes: bool = False) -> None:
        """Watch a descriptor, or watch it in another way from now on."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        known = self._selector.get_map().get(fd)
        if known is None:
            self._selector.register(fd, wanted)
        elif known.events != wanted:
            self._selector.modify(fd, wanted)

    def drop(self, fd: int) -> None:
        """Watch it no more; nothing where it is not watched."""
        if fd in self:
            self._selector.unregister(fd)

    def __contains__(self, fd: int) -> bool:
        return fd in self._selector.get_map()

    def writes(self, fd: int) -> bool:
        """Whether it is watched for writing as well."""
        known = self._selector.get_map().get(fd)
        return known is not None and bool(known.events & selectors.EVENT_WRITE)

    def ready(self) -> dict[int, bool]:
        """What can be read, or written, now; and whether it can be written."""
        found = self._selector.select(0)
        return {key.fd: bool(events & selectors.EVENT_WRITE) for key, events in found}

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()
