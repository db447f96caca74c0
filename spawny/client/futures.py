"""Calls that nobody waits for yet: `spawny.submit`, and what `spawny.aio` is made of.

A daemon runs one call at a time anyway, so the submitted calls of a session wait in one *line*
(`line.py`), and one thread makes them. A coroutine function there is answered at once with a
task, and the thread goes on; when the task is over the daemon says so (DONE), and its result is
fetched, by another thread where that one is in a call: a daemon that makes room for its successor
keeps calls waiting, and waits itself for the results to be fetched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..errors import CallTimeout, DaemonDied, RemoteTraceback, StaleReference
from ..kernel import wire
from .lazy_future import LazyFuture
from .line import in_thread, line_of
from .proxy import ObjectProxy, checked_proxy, method_name_of, reference_of
from .scope import Scope
from .scope import current as current_scope
from .serialize import dumps

if TYPE_CHECKING:
    from .channel import Channel, Request
    from .line import Line
    from .references import Epitaph
    from .session import Session


def submit(callable_proxy: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
    """Have the proxy called as soon as its daemon is free; the future of the result, at once.

    Calls of one process are begun in the order in which they were submitted. A coroutine function
    gives its awaited result; while it waits for something, other calls run. `cancel()` takes a call
    out of the line, or interrupts it where it runs; a task is cancelled. A deadline of
    `spawny.timeout` in force now holds for the call.

    The call is made even if the future is dropped; a script ends when all of them are done.
    """
    proxy = checked_proxy(callable_proxy)
    return submit_awaited(proxy, method_name_of(proxy), args, kwargs)


def submit_awaited(
    proxy: ObjectProxy,
    name: str | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    flags: int = 0,
    on_over: Callable[[], None] | None = None,
) -> CallFuture:
    """The future of what comes of calling this proxy, or its method of that name; awaited there,
    if it is awaitable. `on_over` is called when there is a result, on any thread."""
    ask = _Ask(proxy, wire.AWAIT, (name, args, kwargs), flags)
    return _submitted(reference_of(proxy).session, ask, on_over)


def submit_request(
    session: Session | Epitaph, make: Callable[[], Any], on_over: Callable[[], None] | None = None
) -> CallFuture:
    """The future of what `make()` returns, which makes requests to this session."""
    return _submitted(session, make, on_over)


def _submitted(
    session: Session | Epitaph, ask: Callable[[], Any], on_over: Callable[[], None] | None
) -> CallFuture:
    line = session.line or line_of(session)
    future = CallFuture(line, ask, on_over)
    line.add(future)
    return future


class _Ask:
    """One request, and no other. Its proxy stays referenced from here, or its object could be
    released under the call."""

    __slots__ = ("fields", "flags", "kind", "proxy")

    def __init__(
        self, proxy: ObjectProxy, kind: int, fields: tuple[Any, ...], flags: int = 0
    ) -> None:
        self.proxy = proxy
        self.kind = kind
        self.fields = fields
        self.flags = flags

    def __call__(self) -> Any:
        reference = reference_of(self.proxy)
        return reference.ask(self.kind, *self.fields, flags=self.flags)


class CallFuture(LazyFuture):
    """It stays pending until the answer is there, and can be cancelled as long as that."""

    is_over = False
    is_urgent = False
    is_plain = False  # may it go with others?
    deadline: float | None = None
    _is_cancelled = False
    _is_fetching = False  # of a task that is over, the result
    _scope: Scope | None = None  # of the request under way
    _sent: tuple[Channel, int] | None = None  # which of many that are under way it is
    _task: ObjectProxy | None = None  # that runs in the daemon

    def __init__(
        self, line: Line, ask: Callable[[], Any], on_over: Callable[[], None] | None = None
    ) -> None:
        self.line = line
        self._on_over = on_over
        self._ask: Callable[[], Any] | None = ask
        self._context = copy_context()
        scope = current_scope.get()
        if scope is not None:
            self.deadline = scope.deadline
        elif type(ask) is _Ask:
            self.is_plain = True

    def running(self) -> bool:
        """Has the call been begun, and is not over?"""
        is_begun = self._scope is not None or self._sent is not None or self._task is not None
        return is_begun and not self.done()

    def cancel(self) -> bool:
        """Take the call out of the line, or interrupt it; False where it is over already."""
        if not self._end(is_cancelled=True):
            return self._is_cancelled and super().cancel()
        super().cancel()
        self.set_running_or_notify_cancel()  # for those in wait() and as_completed()
        self._give_up()
        return True

    def expire(self) -> None:
        """The deadline has passed: no more waiting, in the line or for the task."""
        # A request under way has the deadline itself.
        if self._scope is None and self._end():
            name = self.line.session.name
            self._give_up()
            self._tell(error=CallTimeout(f"a call submitted to daemon {name!r} took too long"))

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """The call is over."""
        if not self._end():
            return
        self._ask = self._task = None
        self._tell(result, error)

    def _tell(self, result: Any = None, error: BaseException | None = None) -> None:
        self.settle(result, error)
        if self._on_over is not None:
            self._on_over()

    def _end(self, is_cancelled: bool = False) -> bool:
        """Whoever gets True here decides what becomes of the future."""
        with _ending:
            if self.is_over:
                return False
            self.is_over = True
            self._is_cancelled = is_cancelled
            return True

    def _give_up(self) -> None:
        task, self._task, self._ask = self._task, None, None
        self.line.remove(self, None if task is None else reference_of(task).oid)
        scope, sent = self._scope, self._sent
        if scope is not None:
            in_thread(scope.cancel)  # which waits for an answer
        elif sent is not None:
            in_thread(sent[0].interrupt, sent[1])
        if task is not None:
            _cancel_task(self.line, task)

    def run(self) -> None:
        """Make the call, by itself; on a thread of the line."""
        try:
            result = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 (raised where the result is asked for)
            self.failed(error)
            self = None  # type: ignore[assignment]  # the traceback refers to this frame
        else:
            self.answered(result)

    def _call(self) -> Any:
        with Scope() as self._scope:
            ask = self._ask  # looked at after the scope was made known, see _give_up
            try:
                return None if ask is None else ask()
            finally:
                self._scope = None

    # --- as one of many, see burst.py ---

    @property
    def request(self) -> tuple[int, tuple[Any, ...]] | None:
        """(kind, fields), as long as it is not over."""
        ask = self._ask
        if type(ask) is not _Ask:
            return None
        return ask.kind, (reference_of(ask.proxy).oid, *ask.fields)

    def pack(self, session: Session) -> Request | None:
        """The request; None where it need not be made any more."""
        ask = self._ask
        if type(ask) is not _Ask:
            return None
        reference = reference_of(ask.proxy)
        if reference.session is not session:
            self.run()  # of a daemon that has ended meanwhile: another has its number now
            return None
        fields = (reference.oid, *ask.fields)
        try:
            body, flags = self._context.run(dumps, fields, session)
        except Exception as error:  # noqa: BLE001 (raised where the result is asked for)
            self.finish(error=error)
            return None
        return ask.kind, body, flags | ask.flags

    def goes_as(self, channel: Channel, number: int) -> bool:
        """It is about to be sent under this number, unless it was cancelled."""
        with _ending:  # or another, that has the number then, would be interrupted for it
            if self.is_over:
                return False
            self._sent = channel, number
            return True

    def answered(self, result: Any) -> None:
        """This has come of the request."""
        self._sent = None
        if type(result) in _SURELY_NO_TASK or not _is_task(result):
            self.finish(result)
        else:
            self._wait_for(result)

    def failed(self, error: BaseException) -> None:
        """The request has raised this."""
        self._sent = None
        is_end = isinstance(error, (StaleReference, DaemonDied))
        if self._is_fetching and is_end and not isinstance(error.__cause__, RemoteTraceback):
            name = self.line.session.name
            lost = DaemonDied(
                f"daemon {name!r} has ended, and the result of this call, which has run there, was"
                f" not fetched before; see: spawny why {name}",
                exit_code=getattr(error, "exit_code", None),
                signal_name=getattr(error, "signal_name", None),
                output=getattr(error, "output", ""),
            )
            lost.__cause__ = error
            error = lost
        self.finish(error=error)

    # --- a task of the daemon's ---

    def _wait_for(self, task: ObjectProxy) -> None:
        """The call goes on as a task there."""
        self._task, self._ask = task, None
        self.line.expect(reference_of(task).oid, self)
        if self.is_over:
            self._give_up()  # it was cancelled before it was known as what
        elif self.deadline is not None and self.deadline <= time.monotonic():
            self.expire()

    def fetch(self) -> None:
        """The task is over; on any thread."""
        task = self._task
        if task is None or self.is_over:
            return

        self._is_fetching = True
        self._ask = _Ask(task, wire.METHOD, ("result", (), {}))
        self.is_plain = True
        self.line.add_urgent(self)


def _cancel_task(line: Line, task: ObjectProxy) -> None:
    """Have the daemon cancel it, as the next thing that it does for us."""
    # In a context of its own: no deadline holds for this.
    future = Context().run(CallFuture, line, _Ask(task, wire.METHOD, ("cancel", (), {})))
    with suppress(RuntimeError):  # the interpreter is ending, and our lease with it
        line.add_urgent(future)


# Decides who ends a future, where two may; held for no more than that.
_ending = threading.Lock()

_SURELY_NO_TASK = frozenset([type(None), bool, int, float, str, bytes, list, tuple, dict])


def _after_fork_in_child() -> None:
    """The thread that held it is not here."""
    global _ending
    _ending = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_task(result: Any) -> bool:
    if not issubclass(type(result), ObjectProxy):
        return False
    remote_type = reference_of(result).remote_type
    return remote_type.qualname == "Task" and remote_type.module == "_spawny_kernel.tasks"
