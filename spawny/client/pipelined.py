"""Many requests over one channel, none of which waits for the answer to the one before.

The one rule: nothing else is said on the channel before the last of them is answered. So what does
not load here is asked for only then.
"""

from __future__ import annotations

import pickle
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..kernel import wire
from ..kernel.buffers import loads
from .results import AnswerUnusable, NotRun, exception_of, held, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .channel import Channel, Request
    from .scope import Scope
    from .session import Session


class Asker(Protocol):
    """Who wants to know what comes of a request; one of the two is called, once."""

    def answered(self, result: Any) -> None: ...

    def failed(self, error: BaseException) -> None: ...


A = TypeVar("A", bound=Asker)


class Pipelined(Generic[A]):
    """`waiting` are those whose requests are on their way. They are put there by whoever gives the
    requests, and taken out when answered; of what does not load, `unloaded` remembers it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.waiting: deque[A] = deque()
        self.unloaded: deque[_Unloaded[A]] = deque()

    def make(
        self,
        channel: Channel,
        requests: Iterator[Request],
        flags: int,
        scope: Scope | None = None,
    ) -> None:
        """Make them all, and tell each asker; `flags` are those of any request on that channel.

        Raises as `Channel.exchange` does, `NotRun`, and what an asker does.
        """
        is_held = self._settle_loaded(channel, requests, scope)
        while self.unloaded:
            self.unloaded[0].settle(self._session, channel, flags)
            self.unloaded.popleft()
        if is_held:
            channel.send(wire.frame(wire.RELEASE, pickle.dumps([], 2)))

    def _settle_loaded(
        self, channel: Channel, requests: Iterator[Request], scope: Scope | None
    ) -> bool:
        """True if the daemon holds some of the results."""
        is_held = False
        session, waiting, unloaded = self._session, self.waiting, self.unloaded
        for number, (answer, flags, body) in channel.pipeline(requests, scope):
            asker = waiting[0]
            if answer == wire.VALUE and not flags:
                try:
                    result = loads(body)
                except Exception:  # noqa: BLE001 (loading runs the classes' own code)
                    unloaded.append(_Unloaded(number, asker))
                else:
                    asker.answered(result)
            elif answer == wire.VALUE:
                is_held = is_held or bool(flags & wire.IS_HELD)
                if flags & wire.WITH_REFERENCES:
                    # To put a proxy into a set may take its hash, by a request.
                    unloaded.append(_Unloaded(number, asker, body, flags))
                else:
                    try:
                        result = load(session, body, flags)
                    except Exception:  # noqa: BLE001
                        unloaded.append(_Unloaded(number, asker))
                    else:
                        asker.answered(result)
            elif answer == wire.REFERENCE:
                asker.answered(session.proxy(*pickle.loads(body)))
            elif flags & wire.NOT_RUN:
                raise NotRun(body, flags)  # nor were those after it
            else:
                asker.failed(exception_of(session, body, channel.run))
            waiting.popleft()
        return is_held


class _Unloaded(Generic[A]):
    """An answer that does not load here, or was not tried yet."""

    def __init__(self, number: int, asker: A, body: bytes = b"", flags: int = 0) -> None:
        self.number = number
        self.asker = asker
        self._body = body
        self._flags = flags

    def settle(self, session: Session, channel: Channel, request_flags: int) -> None:
        """Load it, or have what does not load by reference."""
        try:
            self.asker.answered(self._result(session, channel, request_flags))
        except AnswerUnusable as unusable:
            self.asker.failed(unusable.error)

    def _result(self, session: Session, channel: Channel, request_flags: int) -> Any:
        if self._body:
            with suppress(Exception):
                return load(session, self._body, self._flags)
        return held(session, channel, self.number, request_flags)
