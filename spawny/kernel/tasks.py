"""Coroutines of user code, run between requests by the asyncio event loop of the main thread.

The one rule: the loop runs only where the server would else wait for requests. So user code still
runs one piece at a time on the main thread, and an ordinary call runs outside of the loop, where
`asyncio.run()` works as it always does. Nothing of asyncio is imported before the first coroutine.
"""

import collections.abc
import pickle
import select
import time
import traceback
import types
import weakref

from . import wire

# A client that lives fetches a result in no time, but it may be stopped.
FETCH_SECONDS = 5.0

_ITERABLE_COROUTINE = 0x100  # the flag of a generator's code that @types.coroutine sets


def _aexit(manager, error):
    trace = None if error is None else error.__traceback__
    return type(manager).__aexit__(manager, None if error is None else type(error), error, trace)


# What triggers these special methods; but for __aiter__, the result is awaitable.
OPERATIONS = {
    "__await__": lambda value: value,
    "__aiter__": lambda value: type(value).__aiter__(value),
    "__anext__": lambda value: type(value).__anext__(value),
    "__aenter__": lambda value: type(value).__aenter__(value),
    "__aexit__": _aexit,
}


def is_awaitable(value):
    """Would `await value` do?"""
    if type(value) is types.GeneratorType:
        return bool(value.gi_code.co_flags & _ITERABLE_COROUTINE)
    return isinstance(value, collections.abc.Awaitable)


class Task:
    """What a client refers to while its coroutine runs; it is told by DONE when that is over."""

    def __init__(self, future, session):
        self._future = future
        self._session = session
        self.oid = None  # its number among what the session refers to
        self.over_at = None
        self.is_fetched = False

    def result(self):
        self.is_fetched = True
        return self._future.result()

    def cancel(self):
        self._future.cancel()

    @property
    def is_awaited(self):
        """Is its client about to fetch the result?"""
        is_late = time.monotonic() > self.over_at + FETCH_SECONDS
        return not (self.is_fetched or self._session.is_over or is_late)

    def tell(self):
        """Say to the client that it is over."""
        self.over_at = time.monotonic()
        if not self._session.is_over:
            self._session.tell(wire.frame(wire.DONE, pickle.dumps((self.oid,), 2)))


class Tasks:
    """The loop, and what of ours is under way in it."""

    def __init__(self):
        self.is_pending = False  # may the loop have anything to do?
        self._asyncio = None
        self._loop = None
        self._under_way = set()  # the loop itself does not keep tasks alive
        self._over = weakref.WeakSet()  # clients keep a task until they have its result
        self.on_over = None  # called when one of these is over
        self._is_closing = False

    @property
    def is_under_way(self):
        """Does a coroutine that a client has begun run on?"""
        return bool(self._under_way)

    @property
    def is_awaited(self):
        """Is there a result that its client is about to fetch?"""
        for task in list(self._over):
            if not task.is_awaited:
                self._over.discard(task)
        return bool(self._over)

    def start(self, awaitable, session):
        """The Task of something awaitable that was made for this session; runs in `wait`."""
        import asyncio

        self._asyncio = asyncio
        loop = self._find_loop()
        task = Task(asyncio.ensure_future(awaitable, loop=loop), session)
        self._under_way.add(task)
        task._future.add_done_callback(lambda future: self._is_over(task))
        # From now on, since what a coroutine starts may go on when it is over itself.
        self.is_pending = True
        return task

    def _is_over(self, task):
        self._under_way.discard(task)
        if self._is_closing:
            return  # nobody could fetch what has come of it
        task.tell()
        self._over.add(task)
        if self.on_over is not None:
            self.on_over()

    def _find_loop(self):
        """The current loop of the main thread, which locks and queues made by scripts belong to in
        a Python before 3.10; a new one where there is none."""
        loop = self._loop
        if loop is None:
            loop = _current_loop(self._asyncio)
        if loop is None or loop.is_closed():
            loop = self._asyncio.new_event_loop()
        self._loop = loop
        return loop

    def wait(self, fds):
        """Run the loop until some of these descriptors can be read; gives those."""
        loop = self._loop
        if loop.is_closed():
            self.is_pending = False
        if loop.is_closed() or self._asyncio._get_running_loop() is not None:
            # No loop runs inside another: coroutines wait for the callback that this one makes.
            return _poll(fds)
        ready = []

        def note(fd):
            ready.append(fd)
            loop.stop()

        self._asyncio.set_event_loop(loop)  # asyncio.run() in user code leaves none
        for fd in fds:
            loop.add_reader(fd, note, fd)
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            pass  # of a task: asyncio lets it through, and the client gets it as the task's result
        except BaseException:
            traceback.print_exc()  # of the loop itself; the requests must go on
        finally:
            for fd in fds:
                loop.remove_reader(fd)
        return ready

    def leave_to_parent(self):
        """In a forked child of user code: no step of any other task is taken here."""
        if self._loop is not None:
            self._loop.stop()

    def close(self):
        """At the daemon's end: have what is still under way cancelled, so that it can clean up."""
        self._is_closing = True
        if not self.is_pending or self._loop.is_closed():
            return
        asyncio = self._asyncio
        try:
            all_tasks = getattr(asyncio, "all_tasks", None) or asyncio.Task.all_tasks
            tasks = [task for task in all_tasks(self._loop) if not task.done()]
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException:
            traceback.print_exc()


def _current_loop(asyncio):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer ones would rather have no current loop
        try:
            return asyncio.get_event_loop()
        except RuntimeError:
            return None


def _poll(fds):
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll()]
