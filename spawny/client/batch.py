"""Many calls at once: sent without waiting for each other's answers, carried out in order."""

from __future__ import annotations

import pickle
from collections import deque
from concurrent.futures import Future

from ..errors import InvalidRequest
from ..kernel import wire
from .channel import Overdue
from .proxy import ObjectProxy, method_target, reference_of
from .scope import current
from .serialize import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from .session import Session


class Batch:
    """Collects calls, and makes them when its `with` block ends; made by `spawny.batch`."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._requests: list[tuple[int, bytes, int]] = []
        self._named: list[tuple[int, tuple[Any, ...]]] = []  # the same, for messages
        self._futures: list[Future[Any]] = []
        self._targets: list[ObjectProxy] = []  # kept alive until they were called

    def call(self, callable_proxy: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Add a call; its future is done when the block has ended.

        The arguments are pickled now. Raises `SerializationError` where they cannot be.
        """
        if not issubclass(type(callable_proxy), ObjectProxy):
            raise InvalidRequest(f"{type(callable_proxy).__name__} object is no proxy")
        reference = reference_of(callable_proxy)
        session = reference.session
        if self._session is None:
            self._session = session  # type: ignore[assignment]  # or it is told below
        elif session is not self._session:
            raise InvalidRequest("all calls of a batch go to one daemon")
        target = method_target(callable_proxy)
        if target is None:
            kind, request = wire.CALL, (reference.oid, args, kwargs)
        else:
            kind, request = wire.METHOD, (reference.oid, target[1], args, kwargs)  # type: ignore[assignment]
        if session.gone is not None:
            session.request(kind, request)  # raises, or comes back and has made the call
        body, flags = dumps(request, session)  # type: ignore[arg-type]
        future: Future[Any] = Future()
        self._requests.append((kind, body, flags | wire.PIPELINED))
        self._named.append((kind, request))
        self._futures.append(future)
        self._targets.append(callable_proxy)
        return future

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for future in self._futures:
                future.cancel()
        elif self._session is not None:
            self._run(self._session)

    def _run(self, session: Session) -> None:
        scope = current.get()
        channel, flags = session.borrow()
        requests = [(kind, body, each | flags) for kind, body, each in self._requests]
        unloaded: list[tuple[int, Future[Any]]] = []
        was_held = False
        waiting = deque(zip(self._futures, self._named, strict=True))
        is_intact = False
        try:
            for number, (answer, answer_flags, body) in channel.pipeline(requests, scope):
                future, _ = waiting[0]
                if answer == wire.ERROR:
                    raised = session.remote_exception(body)
                    if scope is not None and scope.is_over():
                        raise Overdue(Overdue.INTERRUPTED)
                    if isinstance(raised, KeyboardInterrupt):
                        raise raised  # as a rule Ctrl-C, and that is for all of them
                    future.set_exception(raised)
                elif answer == wire.REFERENCE:
                    future.set_result(session.proxy(*pickle.loads(body)))
                else:
                    was_held = was_held or bool(answer_flags & wire.IS_HELD)
                    try:
                        future.set_result(session.load(body, answer_flags))
                    except Exception:  # noqa: BLE001 (loading runs the classes' own code)
                        unloaded.append((number, future))
                waiting.popleft()
            # Only now: a request in between would come after those that are on their way.
            for number, future in unloaded:
                future.set_result(session.held(channel, number, flags))
            if was_held:
                channel.send(wire.frame(wire.RELEASE, pickle.dumps([], 2)))
            is_intact = True
        except BaseException as error:
            kind, request = waiting[0][1] if waiting else (wire.HELD, ())
            reason = session.broken(channel, error, scope, kind, request)
            for future in self._futures:
                if not future.done():
                    future.set_exception(reason)
            if reason is error:
                raise
            raise reason from None
        finally:
            if is_intact:
                session.give_back(channel)


def batch() -> Batch:
    """A context manager for many calls of one daemon that need not wait for each other.

    `call(proxy, *args, **kwargs)` in it gives a future. When the block ends all calls are sent,
    carried out in order, and all futures are done; one that fails does not keep the next from being
    made. When the block is left by an exception no call is made.
    """
    return Batch()
