"""The segments of one session, as its client has them: see `kernel/segments.py`.

The daemon never asks for anything by itself, so it is this side that passes the segments which it
lends, and fetches those that an answer lies in, each once, by an errand.
"""

from __future__ import annotations

import threading

from ..kernel import buffers, wire
from ..kernel.borrower import settle
from ..kernel.segments import Segments
from . import background
from .channel import ERRAND_SECONDS, errand, errand_for_descriptor
from .log import log
from .scope import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .channel import Channel
    from .session import Session


class Lending:
    """Packs what goes to one daemon, and unpacks what comes from it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._path, self._session_id = session.path, session.session_id
        can_lend = bool(session.started["can_borrow"]) and buffers.can_borrow()
        self._segments = Segments(can_lend, self._notify, self._keep)

    def pack(self, pickled: bytes, large: list[Any]) -> Any:
        """The body of a request (flag WITH_BUFFERS) with these buffers."""
        return buffers.pack(pickled, large, self._segments.lender, self._hand_over)

    def unpack(self, body: bytes | memoryview) -> tuple[memoryview, list[Any]]:
        """(pickle, buffers) of such a body from the daemon."""
        found: tuple[memoryview, list[Any]]
        found = buffers.unpack(body, self._segments.borrower, self._fetch)
        return found

    def refuse(self, body: bytes | memoryview) -> None:
        """Such a body could not be unpacked."""
        buffers.refuse(body, self._segments.borrower)

    def frame(self, channel: Channel) -> bytes:
        """What the daemon is to be told, to be sent on this channel before the next request."""
        frame: bytes = wire.frame(wire.SEGMENTS, self._segments.news(channel))
        return frame

    def not_sent(self, channel: Channel) -> None:
        """The frame for this channel was not sent."""
        self._segments.tell_again(channel)

    def settle(self) -> None:
        """Deal with what an interrupt has left to be dealt with."""
        settle()

    def heard(self, body: bytes) -> None:
        """What the daemon tells."""
        self._segments.heard(body)

    def channel_is_over(self, channel: Channel) -> None:
        """A request on it may never have been read."""
        self._segments.connection_is_over(channel)

    def trim(self) -> bool:
        """On the janitor's thread: give up what is not used; is there something left to give up?"""
        is_left: bool = self._segments.trim()
        return is_left

    def close(self) -> None:
        """The session is over. What was borrowed lasts as long as it is in use."""
        self._segments.close()

    def _notify(self) -> None:
        # In the middle of any line: an assignment, and a `put` in C.
        self._session.has_news = True
        background.collected.put(self._session)

    def _keep(self) -> None:
        background.collected.put(self._session)

    def _hand_over(self, loan: Any) -> bool:
        fields = self._session_id, loan.number, loan.size
        scope = current.get()
        remaining = None if scope is None else scope.remaining()
        timeout = ERRAND_SECONDS if remaining is None else min(remaining + 0.001, ERRAND_SECONDS)
        try:
            passed = list(loan.descriptors)
            has_it = errand(self._path, wire.PASS, *fields, timeout=timeout, descriptors=passed)
        except OSError as error:
            log("debug", "daemon %r takes no segment: %s", self._session.name, error)
            return False
        if has_it:
            loan.descriptors.close()
        return bool(has_it)

    def _fetch(self, number: int) -> None:
        # By a thread, to which signal handlers do not come: whatever a Ctrl-C breaks off here, the
        # descriptor finds its owner.
        failures: list[Exception] = []
        thread = threading.Thread(target=self._fetch_quietly, args=(number, failures), daemon=True)
        thread.start()
        thread.join()
        if failures:
            raise failures.pop()

    def _fetch_quietly(self, number: int, failures: list[Exception]) -> None:
        try:
            fields = self._session_id, number
            answer, descriptor = errand_for_descriptor(self._path, wire.FETCH, *fields)
            if descriptor is None:
                raise OSError(f"no descriptor for a segment of {self._session.name!r} is to be had")
            self._segments.borrower.add(number, descriptor, answer[0])
        except Exception as error:  # noqa: BLE001 (raised in the thread that waits)
            failures.append(error)
