"""Many calls at once: sent without waiting for each other's answers, carried out in order."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, StaleReference
from ..kernel import wire
from ..kernel.buffers import Parts
from .channel import Overdue
from .lazy_future import LazyFuture
from .pipelined import Pipelined
from .proxy import ObjectProxy, call_request, checked_proxy, is_lasting, reference_of
from .results import NotRun
from .scope import current
from .serialize import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .channel import Channel, Request
    from .scope import Scope
    from .session import Session

# After so many calls what could not be loaded is asked for, and the daemon lets go of their results
# (if these have classes): a batch of a million calls takes no more of its memory than this.
ROUND_CALLS = 4096


class BatchFuture(LazyFuture):
    """Whoever leaves the block late must not wait in it for what only comes after."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def result(self, timeout: float | None = None) -> Any:
        self._batch.check_sent()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._batch.check_sent()
        return super().exception(timeout)


class _Call:
    """What was collected: the request as it is sent, and as messages tell it."""

    __slots__ = ("body", "flags", "future", "kind", "proxy", "request", "scope")

    def __init__(
        self,
        future: BatchFuture,
        kind: int,
        body: bytes | Parts,
        flags: int,
        request: tuple[Any, ...],
        proxy: ObjectProxy,
    ) -> None:
        self.future = future
        self.kind = kind
        self.body = body
        self.flags = flags
        # What messages tell of it; not the arguments, which others may want to be gone.
        self.request = request[:2] if kind == wire.METHOD else request[:1]
        self.proxy = proxy  # its object must not be released before
        self.scope: Scope | None = None  # that it is made in

    def answered(self, result: Any) -> None:
        self.future.settle(result)

    def failed(self, error: BaseException) -> None:
        if self.scope is not None and self.scope.is_over():
            raise Overdue(Overdue.INTERRUPTED)
        if isinstance(error, KeyboardInterrupt):
            raise error  # as a rule Ctrl-C, and that is for all of them
        self.future.settle(error=error)

    def may_be_sent_again(self) -> bool:
        """Does the message mean the same to the next daemon?"""
        is_of_this = self.flags & (wire.WITH_REFERENCES | wire.WITH_BUFFERS)
        return is_lasting(self.request[0]) and not is_of_this


class Batch:
    """Collects calls, and makes them when its `with` block ends; made by `spawny.batch`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._is_over = False
        self._session: Session | None = None
        self._run_of_session: tuple[str, int] | None = None
        self._calls: deque[_Call] = deque()

    def call(self, callable_proxy: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Add a call; its future is done when the block has ended.

        The arguments are pickled now. Raises `SerializationError` where they cannot be.
        """
        self._check_open()
        proxy = checked_proxy(callable_proxy)
        session = reference_of(proxy).session
        if session is not self._session:
            if self._session is not None:
                raise InvalidRequest("all calls of a batch go to one daemon")
            self._session = session  # type: ignore[assignment]  # or it is told below
        kind, request = call_request(proxy, args, kwargs)
        if session.gone is not None:
            session.come_back(request)
        if self._run_of_session is None:
            self._run_of_session = session.run
        body, flags = dumps(request, session)  # type: ignore[arg-type]
        if type(body) is Parts:
            body.freeze()
        future = BatchFuture(self)
        self._calls.append(_Call(future, kind, body, flags, request, proxy))
        return future

    def check_sent(self) -> None:
        """Raise where its own thread would wait for ever for a result."""
        if not self._is_over and threading.get_ident() == self._thread:
            raise InvalidRequest("the calls of a batch are made when its `with` block ends")

    def _check_open(self) -> None:
        if self._is_over:
            raise InvalidRequest("this batch is over; make another one")

    def __enter__(self) -> Batch:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        calls, self._calls = self._calls, deque()
        if error is not None:
            for call in calls:
                call.future.cancel()
        elif self._session is not None:
            self._run(self._session, calls)

    def _run(self, session: Session, calls: deque[_Call]) -> None:
        scope = current.get()
        channel: Channel | None = None
        pipelined: Pipelined[_Call] = Pipelined(session)
        again: deque[_Call] = deque()
        try:
            if session.gone is not None or session.run != self._run_of_session:
                raise StaleReference(
                    f"daemon {session.name!r} has ended since this batch was begun: make it anew"
                )
            if scope is not None and scope.is_over():
                raise Overdue(Overdue.NOT_SENT)
            channel, flags = session.borrow()
            while calls:
                requests = _requests(calls, pipelined.waiting, flags, scope)
                pipelined.make(channel, islice(requests, ROUND_CALLS), flags, scope)
        except BaseException as error:
            waiting = [*pipelined.waiting, *calls]
            if isinstance(error, NotRun) or not getattr(error, "is_sent", True):
                again.extend(each for each in waiting if each.may_be_sent_again())
            first = [*again, *waiting][0] if waiting else None
            kind, request = (wire.HELD, ()) if first is None else (first.kind, first.request)
            reason = session.broken(channel, error, scope, kind, request)
            if reason is None:
                waiting = [each for each in waiting if not each.may_be_sent_again()]
            text = f"daemon {session.name!r} has ended: this was not run"
            lost = StaleReference(text) if reason is None else reason
            for call in [*(each.asker for each in pipelined.unloaded), *waiting]:
                if not call.future.done() and call.future.begin():
                    call.future.settle(error=lost)
            if reason is error:
                raise
            if reason is not None:
                raise reason from None
        else:
            session.give_back(channel)
            return
        self._run_of_session = session.run
        self._run(session, again)  # for the first time, in the next daemon


def _requests(
    calls: deque[_Call], waiting: deque[_Call], flags: int, scope: Scope | None
) -> Iterator[Request]:
    """Those of the calls that were not cancelled, each as it is about to be sent."""
    flags |= wire.PIPELINED
    while calls:
        call = calls.popleft()
        if call.future.begin():
            call.scope = scope
            waiting.append(call)
            yield call.kind, call.body, call.flags | flags


def batch() -> Batch:
    """A context manager for many calls of one daemon that need not wait for each other.

    `call(proxy, *args, **kwargs)` in it gives a future. When the block ends all calls are sent,
    carried out in order, and all futures are done; one that fails does not keep the next from being
    made. When the block is left by an exception no call is made.
    """
    return Batch()
