"""Calls that nobody waits for yet: `spawny.submit`, and what `spawny.aio` is made of.

A daemon runs one call at a time anyway, so the submitted calls of a session wait in one *line*, and
one thread makes them, as ordinary requests. A coroutine function there is answered at once with a
task, and the thread goes on; when the task is over the daemon says so (DONE), and its result is
fetched, by another thread where that one is in a call: a daemon that makes room for its successor
keeps calls waiting, and waits itself for the results to be fetched.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..errors import CallTimeout, DaemonDied, RemoteTraceback, StaleReference
from ..kernel import wire
from .proxy import ObjectProxy, checked_proxy, method_name_of, reference_of
from .scope import Scope
from .scope import current as current_scope

if TYPE_CHECKING:
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
) -> CallFuture:
    """The future of what comes of calling this proxy, or its method of that name; awaited there,
    if it is awaitable."""
    reference = reference_of(proxy)

    def make() -> Any:
        # The proxy stays referenced from here, or its object could be released under the call.
        return reference_of(proxy).session.request(
            wire.AWAIT, (reference.oid, name, args, kwargs), flags
        )

    return submit_request(reference.session, make)


def submit_request(session: Session | Epitaph, make: Callable[[], Any]) -> CallFuture:
    """The future of what `make()` returns, which makes requests to this session."""
    future = CallFuture(line_of(session), make)
    future.line.add(future)
    return future


class CallFuture(Future[Any]):
    """It stays pending until the answer is there, and can be cancelled as long as that."""

    def __init__(self, line: Line, make: Callable[[], Any]) -> None:
        super().__init__()
        self.line = line
        self.is_over = False
        self._make: Callable[[], Any] | None = make
        self._context = copy_context()
        self._scope: Scope | None = None  # of the request under way
        self._task: ObjectProxy | None = None  # that runs in the daemon
        self._is_cancelled = False
        self._ending = threading.Lock()
        scope = current_scope.get()
        self.deadline = None if scope is None else scope.deadline

    def running(self) -> bool:
        """Has the call been begun, and is not over?"""
        return not self.done() and (self._scope is not None or self._task is not None)

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
            self.set_exception(CallTimeout(f"a call submitted to daemon {name!r} took too long"))
            self._give_up()

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """The call is over."""
        if not self._end():
            return
        self._make = self._task = None
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)

    def _end(self, is_cancelled: bool = False) -> bool:
        """Whoever gets True here decides what becomes of the future."""
        with self._ending:
            if self.is_over:
                return False
            self.is_over, self._is_cancelled = True, is_cancelled
            return True

    def _give_up(self) -> None:
        task, self._task, self._make = self._task, None, None
        self.line.remove(self, None if task is None else reference_of(task).oid)
        scope = self._scope
        if scope is not None:
            in_thread(scope.cancel)  # which waits for an answer
        if task is not None:
            self.line.cancel_task(task)

    def run(self) -> None:
        """Make the call; on a thread of the line."""
        try:
            result = self._context.run(self._call)
            if _is_task(result):
                self._wait_for(result)
            else:
                self.finish(result)
        except BaseException as error:  # noqa: BLE001 (raised where the result is asked for)
            self.finish(error=error)
            self = None  # type: ignore[assignment]  # the traceback refers to this frame

    def _call(self) -> Any:
        with Scope() as self._scope:
            make = self._make  # looked at after the scope was made known, see _give_up
            try:
                return None if make is None else make()
            finally:
                self._scope = None

    # --- a task of the daemon's ---

    def _wait_for(self, task: ObjectProxy) -> None:
        """The call goes on as a task there."""
        self._task, self._make = task, None
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

        def make() -> Any:
            reference = reference_of(task)
            try:
                return reference.session.request(wire.METHOD, (reference.oid, "result", (), {}))
            except (StaleReference, DaemonDied) as error:
                if isinstance(error.__cause__, RemoteTraceback):
                    raise  # it is what the coroutine has raised
                name = reference.session.name
                raise DaemonDied(
                    f"daemon {name!r} has ended, and the result of this call, which has run there,"
                    f" was not fetched before; see: spawny why {name}",
                    exit_code=getattr(error, "exit_code", None),
                    signal_name=getattr(error, "signal_name", None),
                    output=getattr(error, "output", ""),
                ) from error

        self._make = make
        self.line.add_urgent(self)


def _is_task(result: Any) -> bool:
    if not issubclass(type(result), ObjectProxy):
        return False
    remote_type = reference_of(result).remote_type
    return remote_type.qualname == "Task" and remote_type.module == "_spawny_kernel.tasks"


class Line:
    """The submitted calls of one session. One thread makes them; but while it is in a callback of
    one, whose code may wait for calls behind that, another takes its place. What is urgent (a
    result to be fetched, a task to be cancelled) comes first, and does not wait for a call."""

    def __init__(self, session: Session | Epitaph) -> None:
        self.session = session
        self._changed = threading.Condition(threading.Lock())
        self._waiting: OrderedDict[CallFuture, None] = OrderedDict()
        self._urgent: OrderedDict[CallFuture, None] = OrderedDict()
        self._workers = 0  # that are not in a callback
        self._is_idle = False  # does the worker wait for something to do?
        self._is_hurrying = False  # is there a thread for what is urgent alone?
        self._tasks: dict[int, CallFuture] = {}  # oid -> who waits for it
        self._abandoned: set[int] = set()  # tasks that nobody waits for any more
        self._done: set[int] = set()  # tasks that were over before somebody waited

    def add(self, future: CallFuture) -> None:
        """Have this call made."""
        with self._changed:
            self._waiting[future] = None
            wants_worker = not self._workers
            self._workers += wants_worker
            self._changed.notify()
        if wants_worker:
            self._start_worker()
        if future.deadline is not None:
            alarms.set(future.deadline, future)

    def add_urgent(self, future: CallFuture) -> None:
        """Have this made at once."""
        with self._changed:
            self._urgent[future] = None
            wants_worker = not self._workers
            self._workers += wants_worker
            wants_hurry = not (wants_worker or self._is_idle or self._is_hurrying)
            self._is_hurrying |= wants_hurry
            self._changed.notify()
        if wants_worker:
            self._start_worker()
        if wants_hurry:
            try:
                threads.submit(self._hurry)
            except RuntimeError:  # the interpreter is ending: the worker does it after its call
                with self._changed:
                    self._is_hurrying = False

    def remove(self, future: CallFuture, task: int | None) -> None:
        """This call need not be made any more, nor its task be waited for."""
        with self._changed:
            self._waiting.pop(future, None)
            self._urgent.pop(future, None)
            if task is not None and self._tasks.pop(task, None) is not None:
                self._abandoned.add(task)
                self._changed.notify_all()

    # --- its workers ---

    def _start_worker(self) -> None:
        try:
            threads.submit(self._work)
        except BaseException:
            with self._changed:
                self._workers -= 1
            raise

    def _work(self) -> None:
        _here.line = self
        try:
            while (future := self._next()) is not None:
                future.run()
                del future  # or its result would stay until the next one comes
        finally:
            _here.line = None

    def _next(self) -> CallFuture | None:
        """The next call; None where this worker is not needed any more. It also stays for what is
        to come of tasks: the interpreter waits for it at its end, and for them by that."""
        with self._changed:
            while self._workers == 1 and (self._urgent or self._waiting or self._tasks):
                if self._urgent or self._waiting:
                    return (self._urgent or self._waiting).popitem(last=False)[0]
                self._is_idle = True
                try:
                    self._changed.wait()
                finally:
                    self._is_idle = False
            self._workers -= 1
            return None

    def _hurry(self) -> None:
        """Do what is urgent, while the worker is in a call."""
        while (future := self._next_urgent()) is not None:
            future.run()
            del future

    def _next_urgent(self) -> CallFuture | None:
        with self._changed:
            if self._urgent:
                return self._urgent.popitem(last=False)[0]
            self._is_hurrying = False
            return None

    @contextmanager
    def in_callback(self) -> Iterator[None]:
        """Entered around a callback that a call of this session makes: should the thread be the
        worker, another one makes the calls meanwhile."""
        if _here.line is not self:
            yield  # an ordinary call, or a callback within another
            return
        _here.line = None
        with self._changed:
            self._workers -= 1
            wants_worker = bool(self._urgent or self._waiting) and not self._workers
            self._workers += wants_worker
        if wants_worker:
            self._start_worker()
        try:
            yield
        finally:
            _here.line = self
            with self._changed:
                self._workers += 1  # if that makes two, the first to end its call leaves

    # --- tasks in the daemon ---

    def expect(self, task: int, future: CallFuture) -> None:
        """Have the future wait for the end of this task."""
        with self._changed:
            is_done = task in self._done
            if is_done:
                self._done.discard(task)
            else:
                self._tasks[task] = future
        if is_done:
            future.fetch()

    def task_done(self, task: int) -> None:
        """On the listener's thread: the daemon says that a task is over."""
        with self._changed:
            future = self._tasks.pop(task, None)
            if future is None:
                if task in self._abandoned:
                    self._abandoned.discard(task)
                else:
                    self._done.add(task)
                return
        future.fetch()

    def cancel_task(self, task: ObjectProxy) -> None:
        """Have the daemon cancel it, as the next thing that it does for us."""
        session = self.session

        def cancel() -> None:
            with suppress(Exception):  # the daemon is gone, or the task over
                session.request(wire.METHOD, (reference_of(task).oid, "cancel", (), {}))

        # In a context of its own: no deadline holds for this.
        with suppress(RuntimeError):  # the interpreter is ending, and our lease with it
            self.add_urgent(Context().run(CallFuture, self, cancel))

    @property
    def has_tasks(self) -> bool:
        return bool(self._tasks)

    def daemon_ended(self, death: DaemonDied, *, comes_back: bool = False) -> None:
        """The daemon is gone, and with it whatever was to come of these calls; on any thread. What
        still waits is made in the next one, if it `comes_back`."""
        with self._changed:
            lost = [*self._tasks.values(), *self._urgent]
            self._urgent.clear()
            if not comes_back:
                lost += self._waiting
                self._waiting.clear()
            self._tasks.clear()
            self._abandoned.clear()
            self._done.clear()
            self._changed.notify_all()
        if lost:
            in_thread(_bury, lost, death)  # not here: what is done then is up to others


def _bury(lost: list[CallFuture], death: DaemonDied) -> None:
    for future in lost:
        future.finish(
            error=DaemonDied(
                str(death),
                exit_code=death.exit_code,
                signal_name=death.signal_name,
                output=death.output,
            )
        )


def line_of(session: Session | Epitaph) -> Line:
    """The line of submitted calls of this session."""
    with _lock:
        if session.line is None:
            session.line = Line(session)
        return session.line


class Alarms:
    """One thread that keeps the deadlines of all that is submitted."""

    def __init__(self) -> None:
        self._set: list[tuple[float, int, weakref.ref[CallFuture]]] = []
        self._count = itertools.count()  # so that no two entries are equal
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, deadline: float, future: CallFuture) -> None:
        """Have the future expire at this time of `time.monotonic()`."""
        with self._changed:
            # Weakly: one that is over in time must not stay until its deadline.
            heapq.heappush(self._set, (deadline, next(self._count), weakref.ref(future)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="spawny-alarms", daemon=True)
                self._thread.start()
            elif self._set[0][0] == deadline:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            future = self._next()
            if future is not None:
                future.expire()
            del future

    def _next(self) -> CallFuture | None:
        with self._changed:
            while True:
                left = self._set[0][0] - time.monotonic() if self._set else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._set)[2]()
                self._changed.wait(left)


def in_thread(function: Callable[..., Any], *args: Any) -> None:
    """Do this soon, on another thread; here, where the interpreter is ending."""
    try:
        threads.submit(function, *args)
    except RuntimeError:
        function(*args)


class _Here(threading.local):
    line: Line | None = None  # whose worker this thread is


_here = _Here()
_lock = threading.Lock()

# Of lines at work there are few; the number is no limit, only one that ThreadPoolExecutor wants.
# It keeps threads for the next time, and at the end of the interpreter has them finish their lines.
_MOST_THREADS = 10_000

threads = ThreadPoolExecutor(_MOST_THREADS, "spawny-calls")
alarms = Alarms()


def _after_fork_in_child() -> None:
    """What was submitted is the parent's to do, and so are its threads."""
    global threads, alarms, _lock
    threads = ThreadPoolExecutor(_MOST_THREADS, "spawny-calls")
    alarms = Alarms()
    _lock = threading.Lock()
    _here.line = None


os.register_at_fork(after_in_child=_after_fork_in_child)
