"""Submitted calls made many at once: the requests of a line over one channel, see `line.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import DaemonDied
from ..kernel import wire
from .channel import ChannelClosed
from .pipelined import Pipelined
from .results import NotRun

if TYPE_CHECKING:
    from .channel import Channel, Request
    from .futures import CallFuture
    from .references import Epitaph
    from .session import Session


def may_burst(session: Session | Epitaph) -> bool:
    """Does its daemon carry requests out each for itself, and wait for nothing here meanwhile?"""
    is_so = session.gone is None and not session.has_callbacks
    return is_so and bool(session.started.get("takes_followed"))


def burst(
    session: Session, first: CallFuture, following: Callable[[], CallFuture | None]
) -> list[CallFuture]:
    """Make this call, and those that `following` gives until it gives none. What the daemon has
    surely not begun is given back, in order; all others are over."""
    pipelined: Pipelined[CallFuture] = Pipelined(session)
    waiting = pipelined.waiting
    channel: Channel | None = None
    is_begun = False
    try:
        channel, flags = session.borrow()
        words = session.words(channel)
        if words:
            channel.send(words)
        is_begun = True
        requests = _requests(session, channel, flags, first, following, waiting)
        pipelined.make(channel, requests, flags)
    except BaseException as error:  # noqa: BLE001 (raised where the results are asked for)
        lost = [each.asker for each in pipelined.unloaded]
        left: list[CallFuture] = []
        if not is_begun:
            left = [first]  # by itself it is told why
        elif isinstance(error, NotRun) or not getattr(error, "is_sent", True):
            left = list(waiting)
        else:
            lost += waiting
        if lost:
            bury(lost, _reason(session, channel, ChannelClosed() if left else error, lost[0]))
        else:
            session.discard(channel)
        return left
    session.give_back(channel)
    return []


def _reason(
    session: Session, channel: Channel | None, error: BaseException, first: CallFuture
) -> BaseException:
    """What those are told whose requests may have run."""
    kind, request = first.request or (wire.CALL, ())
    try:
        return session.broken(channel, error, None, kind, request) or error
    except Exception as problem:  # noqa: BLE001 (told to them)
        return problem


def _requests(
    session: Session,
    channel: Channel,
    flags: int,
    first: CallFuture,
    following: Callable[[], CallFuture | None],
    waiting: deque[CallFuture],
) -> Iterator[Request]:
    flags |= wire.FOLLOWED
    before = channel.number
    count = 0
    future: CallFuture | None = first
    while future is not None:
        request = future.pack(session)
        # Nested ones, which count as well, come with callbacks alone, and then it is the last.
        if request is not None and future.goes_as(channel, before + count + 1):
            count += 1
            waiting.append(future)
            session.generation += 1
            kind, body, its_flags = request
            yield kind, body, its_flags | flags
            if session.has_callbacks:
                return
        future = following()


def bury(lost: Iterable[CallFuture], reason: BaseException) -> None:
    """None of these comes to anything; each is told by an exception of its own."""
    for future in lost:
        error = reason
        if isinstance(reason, DaemonDied):
            error = DaemonDied(
                str(reason),
                exit_code=reason.exit_code,
                signal_name=reason.signal_name,
                output=reason.output,
            )
        future.finish(error=error)
