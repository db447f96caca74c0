"""The submitted calls of one session, in a line; and the threads that make them.

One thread makes the calls of a line. As long as they take no time and more of them wait, it makes
many at once (a *burst*): sent without waiting for each other's answers, they cost neither a round
trip each nor a change of threads. Behind one that takes long as few as possible are to be on their
way, where they are not cancelled for certain; so bursts grow and shrink with what happens.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import DaemonDied
from .burst import burst, bury, may_burst
from .interrupt import HeldOff, as_the_program

if TYPE_CHECKING:
    from .futures import CallFuture
    from .proxy import Oid
    from .references import Epitaph
    from .session import Session

# A burst is at most so long, and grows and shrinks by such steps.
MOST_CALLS = 1024
STEP = 4
# One that has taken less was quick. (It is the process's own threads that make it slow, as a rule.)
QUICK_SECONDS = 0.02


class Line:
    """The submitted calls of one session. One thread makes them; but while it is in a callback of
    one, whose code may wait for calls behind that, another takes its place. What is urgent (a
    result to be fetched, a task to be cancelled) comes first, and does not wait for a call.

    No burst goes where the daemon has callbacks: what one waits for could be behind it on the same
    connection."""

    def __init__(self, session: Session | Epitaph) -> None:
        self.session = session
        # Taken by itself: a condition does so in Python, where a Ctrl-C may leave it taken.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: OrderedDict[CallFuture, None] = OrderedDict()
        self._urgent: OrderedDict[CallFuture, None] = OrderedDict()
        self._workers = 0  # that are not in a callback
        self._is_idle = False  # does the worker wait for something to do?
        self._is_hurrying = False  # is there a thread for what is urgent alone?
        self._most_calls = 1  # of the next burst
        self._tasks: dict[Oid, CallFuture] = {}  # oid -> who waits for it
        self._abandoned: set[Oid] = set()  # tasks that nobody waits for any more
        self._done: set[Oid] = set()  # tasks that were over before somebody waited

    def add(self, future: CallFuture) -> None:
        """Have this call made."""
        with self._lock:
            self._waiting[future] = None
            wants_worker = not self._workers
            if self._is_idle:
                self._changed.notify()
        if wants_worker:
            self._start_worker()
        if future.deadline is not None:
            alarms.set(future.deadline, future)

    def add_urgent(self, future: CallFuture) -> None:
        """Have this made at once."""
        future.is_urgent = True
        with self._lock:
            self._urgent[future] = None
            wants_worker = not self._workers
            is_idle = self._is_idle
            self._changed.notify()
        if wants_worker:
            is_idle = self._start_worker()
        if not is_idle:
            self._start_hurrying()

    def remove(self, future: CallFuture, task: Oid | None) -> None:
        """This call need not be made any more, nor its task be waited for."""
        with self._lock:
            self._waiting.pop(future, None)
            self._urgent.pop(future, None)
            if task is not None and self._tasks.pop(task, None) is not None:
                self._abandoned.add(task)
                self._changed.notify_all()

    # --- its workers ---

    def _start_worker(self) -> bool:
        """Whether there was none, and so this one has nothing else to do."""
        ticket = [True]  # of this worker, as long as it is counted
        with HeldOff():  # or there might be one less than is counted
            with self._lock:
                if self._workers:
                    return False
                self._workers = 1
            try:
                with as_the_program():
                    threads.submit(self._work, ticket)
            except BaseException:
                with self._lock:
                    # Where no thread could be started, the pool may do it later all the same.
                    if ticket:
                        ticket.clear()
                        self._workers -= 1
                raise
        return True

    def _start_hurrying(self) -> None:
        with HeldOff():
            with self._lock:
                if self._is_hurrying:
                    return
                self._is_hurrying = True
            try:
                with as_the_program():
                    threads.submit(self._hurry)
            except RuntimeError:  # the interpreter is ending: the worker does it after its call
                with self._lock:
                    self._is_hurrying = False

    def _work(self, ticket: list[bool]) -> None:
        with self._lock:
            if not ticket:
                return
            ticket.clear()  # from here on it counts itself out
        _here.line = self
        try:
            while (future := self._next()) is not None:
                self._make(future)
                del future  # or its result would stay until the next one comes
        finally:
            _here.line = None

    def _next(self) -> CallFuture | None:
        """The next call; None where this worker is not needed any more. It also stays for what is
        to come of tasks: the interpreter waits for it at its end, and for them by that."""
        with self._lock:
            while self._urgent or (self._workers == 1 and (self._waiting or self._tasks)):
                if self._urgent or self._waiting:
                    return (self._urgent or self._waiting).popitem(last=False)[0]
                self._is_idle = True
                try:
                    self._changed.wait()
                finally:
                    self._is_idle = False
            self._workers -= 1
            return None

    def _make(self, future: CallFuture) -> None:
        """Make this call, and those behind it that go with it."""
        if future.is_urgent and future.is_plain:
            self._burst(future, self._urgent, MOST_CALLS)
            return
        began = time.monotonic()
        if self._most_calls == 1 or not (future.is_plain and may_burst(self.session)):
            count = 1
            future.run()
        else:
            with self.session.quiet:  # type: ignore[union-attr]  # it is alive
                count = self._burst(future, self._waiting, self._most_calls)
        if time.monotonic() - began > QUICK_SECONDS:
            self._most_calls = 1
        elif count < self._most_calls:
            self._most_calls //= STEP
        elif self._waiting:
            self._most_calls = min(self._most_calls * STEP, MOST_CALLS)

    def _burst(
        self, first: CallFuture, queue: OrderedDict[CallFuture, None], most_calls: int
    ) -> int:
        """How many of this queue were made at once."""
        count = 1

        def following() -> CallFuture | None:
            nonlocal count
            with self._lock:
                if count == most_calls or (self._urgent and queue is not self._urgent):
                    return None
                future = next(iter(queue), None)
                if future is None or not future.is_plain:
                    return None
                del queue[future]
            count += 1
            return future

        session = self.session
        if not may_burst(session):
            first.run()
            return 1
        for future in burst(session, first, following):  # type: ignore[arg-type]  # it is alive
            future.run()
        return count

    def _hurry(self) -> None:
        """Do what is urgent, while the worker is in a call."""
        while (future := self._next_urgent()) is not None:
            self._make(future)
            del future

    def _next_urgent(self) -> CallFuture | None:
        with self._lock:
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
        with self._lock:
            self._workers -= 1
            wants_worker = bool(self._urgent or self._waiting) and not self._workers
        try:
            if wants_worker:
                with suppress(RuntimeError):  # the interpreter is ending: they are made after this
                    self._start_worker()
            yield
        finally:
            _here.line = self
            with self._lock:
                self._workers += 1  # if that makes two, the first to end its call leaves

    # --- tasks in the daemon ---

    def expect(self, task: Oid, future: CallFuture) -> None:
        """Have the future wait for the end of this task."""
        with self._lock:
            is_done = task in self._done
            if is_done:
                self._done.discard(task)
            else:
                self._tasks[task] = future
        if is_done:
            future.fetch()

    def task_done(self, task: int) -> None:
        """On the listener's thread: the daemon says that a task is over."""
        with self._lock:
            future = self._tasks.pop(task, None)
            if future is None:
                if task in self._abandoned:
                    self._abandoned.discard(task)
                else:
                    self._done.add(task)
                return
        future.fetch()

    @property
    def has_tasks(self) -> bool:
        return bool(self._tasks)

    def daemon_ended(self, death: DaemonDied, *, comes_back: bool = False) -> None:
        """The daemon is gone, and with it whatever was to come of these calls; on any thread. What
        still waits is made in the next one, if it `comes_back`."""
        with self._lock:
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
            in_thread(bury, lost, death)  # not here: what is done then is up to others


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
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def set(self, deadline: float, future: CallFuture) -> None:
        """Have the future expire at this time of `time.monotonic()`."""
        with self._lock:
            # Weakly: one that is over in time must not stay until its deadline.
            heapq.heappush(self._set, (deadline, next(self._count), weakref.ref(future)))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="spawny-alarms", daemon=True)
                thread.start()
                self._thread = thread
            elif self._set[0][0] == deadline:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            future = self._next()
            if future is not None:
                future.expire()
            del future

    def _next(self) -> CallFuture | None:
        with self._lock:
            while True:
                left = self._set[0][0] - time.monotonic() if self._set else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._set)[2]()
                self._changed.wait(left)


def in_thread(function: Callable[..., Any], *args: Any) -> None:
    """Do this soon, on another thread; here, where the interpreter is ending."""
    turns = [True]  # of one: what no thread was there for may be run by the pool all the same

    def run() -> None:
        try:
            turns.pop()
        except IndexError:
            return
        function(*args)

    try:
        with as_the_program():
            threads.submit(run)
    except RuntimeError:
        run()


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
