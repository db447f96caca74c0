"""Many calls at once: sent without waiting for each other's answers, carried out in order."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, StaleReference
from ..kernel import wire
from ..kernel.buffers import Parts
from .channel import Overdue
from .proxy import ObjectProxy, call_request, checked_proxy, reference_of
from .results import AnswerUnusable, NotRun, exception_of, held, load
from .scope import current
from .serialize import dumps

if TYPE_CHECKING:
    from types import TracebackType

    from .channel import Channel
    from .session import Session

    # (its future, the request, the same for messages, the proxy: kept alive until it was called)
    _Call = tuple[
        Future[Any], tuple[int, bytes | Parts, int], tuple[int, tuple[Any, ...]], ObjectProxy
    ]


class BatchFuture(Future[Any]):
    """Whoever leaves the block late must not wait in it for what only comes after."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch

    def result(self, timeout: float | None = None) -> Any:
        self._batch.check_sent()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._batch.check_sent()
        return super().exception(timeout)


class Batch:
    """Collects calls, and makes them when its `with` block ends; made by `spawny.batch`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._is_over = False
        self._session: Session | None = None
        self._run_of_session: tuple[str, int] | None = None
        self._calls: list[_Call] = []

    def call(self, callable_proxy: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Add a call; its future is done when the block has ended.

        The arguments are pickled now. Raises `SerializationError` where they cannot be.
        """
        self._check_open()
        proxy = checked_proxy(callable_proxy)
        session = reference_of(proxy).session
        if self._session is None:
            self._session = session  # type: ignore[assignment]  # or it is told below
        elif session is not self._session:
            raise InvalidRequest("all calls of a batch go to one daemon")
        kind, request = call_request(proxy, args, kwargs)
        if session.gone is not None:
            session.come_back(request)
        if self._run_of_session is None:
            self._run_of_session = session.run
        body, flags = dumps(request, session)  # type: ignore[arg-type]
        if isinstance(body, Parts):
            body.freeze()
        future = BatchFuture(self)
        self._calls.append((future, (kind, body, flags | wire.PIPELINED), (kind, request), proxy))
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
        calls, self._calls = self._calls, []
        if error is not None:
            for future, *_ in calls:
                future.cancel()
        elif self._session is not None:
            self._run(
                self._session, [each for each in calls if each[0].set_running_or_notify_cancel()]
            )

    def _run(self, session: Session, calls: list[_Call]) -> None:
        scope = current.get()
        channel: Channel | None = None
        unloaded: list[tuple[int, Future[Any], bytes, int]] = []
        was_held = False
        waiting = deque(calls)
        is_intact = False
        try:
            if session.gone is not None or session.run != self._run_of_session:
                raise StaleReference(
                    f"daemon {session.name!r} has ended since this batch was begun: make it anew"
                )
            if scope is not None and scope.is_over():
                raise Overdue(Overdue.NOT_SENT)
            channel, flags = session.borrow()
            requests = [(kind, body, each | flags) for _, (kind, body, each), *_ in calls]
            for number, (answer, answer_flags, body) in channel.pipeline(requests, scope):
                future = waiting[0][0]
                if answer_flags & wire.NOT_RUN and answer == wire.ERROR:
                    raise NotRun(body, answer_flags)  # nor were those after it
                if answer == wire.ERROR:
                    raised = exception_of(session, body)
                    if scope is not None and scope.is_over():
                        raise Overdue(Overdue.INTERRUPTED)
                    if isinstance(raised, KeyboardInterrupt):
                        raise raised  # as a rule Ctrl-C, and that is for all of them
                    future.set_exception(raised)
                elif answer == wire.REFERENCE:
                    future.set_result(session.proxy(*pickle.loads(body)))
                else:
                    was_held = was_held or bool(answer_flags & wire.IS_HELD)
                    if answer_flags & wire.WITH_REFERENCES:
                        # To put a proxy into a set may take its hash, by a request.
                        unloaded.append((number, future, body, answer_flags))
                    else:
                        try:
                            future.set_result(load(session, body, answer_flags))
                        except Exception:  # noqa: BLE001 (loading runs the classes' own code)
                            unloaded.append((number, future, b"", 0))
                waiting.popleft()
            # Only now: a request in between would come after those that are on their way.
            for number, future, body, answer_flags in unloaded:
                try:
                    if body:
                        with suppress(Exception):
                            future.set_result(load(session, body, answer_flags))
                            continue
                    future.set_result(held(session, channel, number, flags))
                except AnswerUnusable as unusable:
                    future.set_exception(unusable.error)
            if was_held:
                channel.send(wire.frame(wire.RELEASE, pickle.dumps([], 2)))
            is_intact = True
        except BaseException as error:
            is_untold = isinstance(error, NotRun) or not getattr(error, "is_sent", True)
            again = [each for each in waiting if is_untold and _may_be_sent_again(each)]
            kind, request = [*again, *waiting][0][2] if waiting else (wire.HELD, ())
            reason = session.broken(channel, error, scope, kind, request)
            if reason is None:
                lost = StaleReference(f"daemon {session.name!r} has ended: this was not run")
                left = {id(each[0]) for each in again}
                for future, *_ in calls:
                    if not future.done() and id(future) not in left:
                        future.set_exception(lost)
            else:
                for future, *_ in calls:
                    if not future.done():
                        future.set_exception(reason)
                if reason is error:
                    raise
                raise reason from None
        finally:
            if channel is not None and is_intact:
                session.give_back(channel)
        if not is_intact:
            self._run_of_session = session.run
            self._run(session, again)  # for the first time, in the next daemon


def _may_be_sent_again(call: _Call) -> bool:
    """Does the message mean the same to the next daemon?"""
    _, (_, _, flags), (_, request), _ = call
    return request[0] == wire.ROOT and not flags & (wire.WITH_REFERENCES | wire.WITH_BUFFERS)


def batch() -> Batch:
    """A context manager for many calls of one daemon that need not wait for each other.

    `call(proxy, *args, **kwargs)` in it gives a future. When the block ends all calls are sent,
    carried out in order, and all futures are done; one that fails does not keep the next from being
    made. When the block is left by an exception no call is made.
    """
    return Batch()
