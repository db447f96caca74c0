"""An executor of `concurrent.futures` whose workers are daemons, of any interpreter.

The one rule: a worker is a thread of the library's own ThreadPoolExecutor that owns one daemon, or
with a name takes one for each call (`workers.py`). So the queue, the shutdown, the end of the
interpreter and all that is delicate about them are those that the whole world uses; what is ours is
the daemon of a thread.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..address import check_name, numbered
from ..errors import DaemonDied, InvalidRequest, SpawnyError
from .launch import run_script
from .options import Options, check_options
from .proxy import reference_of
from .workers import Workers

if TYPE_CHECKING:
    from typing import Unpack

    from .proxy import ObjectProxy

P = ParamSpec("P")
T = TypeVar("T")

_SCRIPT = """
is_initialized = False
def initialize(function, args):
    global is_initialized
    if not is_initialized:
        function(*args)
        is_initialized = True
def call(function, args, kwargs):
    return function(*args, **kwargs)
"""

# Options that make no sense for daemons that come and go with their executor.
_OF_NAMED = ("idle_timeout", "restart", "on_drift")

# What the starts of daemons say of themselves goes here, not to the terminal.
_logger = logging.getLogger("spawny.executor")


class Executor(ThreadPoolExecutor):
    """A `concurrent.futures.Executor` whose calls run in daemons of their own.

    There are at most `max_workers` of them (default: one for each processor), started as they are
    needed; they end with the executor. `python_exe` and `options` are those of `run_script`, such
    as `preload=("numpy",)`. Each daemon calls `initializer(*initargs)` before anything else.

    With a `name` the daemons are called `name-1` and so on, and outlive the executor (for
    `idle_timeout` seconds, if that is given): the next program that has one of that name finds them
    warm, and programs may use them at the same time. A call goes to one that is idle; only where
    all run calls of other programs does it wait for one of them. An initializer is called once in
    each daemon. `spares` further ones are kept started: a call need not wait for the successor of
    one that has died.

    Functions and arguments travel as any arguments do: by name where the daemon can import them,
    those of the running script with their code. Results come back by value where they can be
    pickled, else as proxies, which keep their daemon alive.

    A call whose daemon dies raises `DaemonDied` and is not repeated; the next call of that worker
    gets a new daemon.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        python_exe: str | os.PathLike[str] | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        spares: int = 0,
        **options: Unpack[Options],
    ) -> None:
        name = options.get("name")
        _check(name, spares, options)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        count = (os.cpu_count() or 1) if max_workers is None else max_workers
        # A worker must know nothing of the executor, or this would never be collected.
        start = partial(_start, python_exe, options, initializer, initargs)
        self._worker = (
            _Worker(start)
            if name is None
            else Workers(numbered(name, count + spares), spares, start)
        )
        super().__init__(
            count, "spawny-executor", None if initializer is None else partial(_begin, self._worker)
        )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called by a daemon; the future of its result."""
        return super().submit(self._worker.call, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **more: Any,
    ) -> Iterator[T]:
        """As `map(fn, *iterables)`, the calls made by the daemons, `chunksize` of them at a time.

        Raises `TimeoutError` where a result is not there `timeout` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        # `list` and `map` are found by name in any daemon, so a chunk is one call there.
        chunks = _chunks(fn, zip(*iterables), chunksize)  # noqa: B905 (as map does)
        return chain.from_iterable(super().map(list, chunks, timeout=timeout, **more))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As that of any executor; daemons without a name end with what they do."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._worker.close(wait)


class _Worker(threading.local):
    """A thread's daemon: it starts with the first call, and ends with the thread."""

    root: ObjectProxy | None = None

    def __init__(self, start: Callable[[str | None], ObjectProxy]) -> None:
        self._start = start

    def begin(self) -> None:
        self.root = self._start(None)

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.root is None or not _is_alive(self.root):
            self.root = None  # a new one comes up where the old one was
            self.root = self._start(None)
        return self.root.call(function, args, kwargs)

    def close(self, wait: bool) -> None:
        """Nothing to be done: each thread's own goes with it."""


def _start(
    python_exe: str | os.PathLike[str] | None,
    options: Options,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    name: str | None,
) -> ObjectProxy:
    """The root of a daemon that can take calls: a new one, or the one of this name."""
    named: Options = {**options, "name": name}
    root = run_script(_SCRIPT, python_exe, _logger, **named)
    if initializer is not None:
        root.initialize(initializer, initargs)
    return root


def _begin(worker: _Worker | Workers) -> None:
    """What the library takes for the initializer: where it fails, the executor is broken."""
    # A daemon that cannot start has more to say than this; its first call will say it.
    with suppress(SpawnyError):
        worker.begin()


def _check(name: str | None, spares: int, options: Options) -> None:
    check_options(options)
    if "if_exists" in options:
        raise InvalidRequest("an executor's daemons have no option 'if_exists'")
    if type(spares) is not int or spares < 0:
        raise InvalidRequest(f"spares is a number from 0 on, not {spares!r}")
    if name is not None:
        # The longest of its names, with as many daemons as anybody may have.
        check_name(f"{name}-9999")
        return
    for key in _OF_NAMED:
        if key in options:
            raise InvalidRequest(f"without a name, an executor's daemons have no option {key!r}")
    if spares:
        raise InvalidRequest("spares are for an executor with a name")


def _is_alive(root: ObjectProxy) -> bool:
    """Would it take a call? One that died since the last must not cost the next its life."""
    if reference_of(root).session.gone is not None:
        return False
    try:
        return bool(root)
    except DaemonDied:
        return False


def _chunks(
    function: Callable[..., T], calls: Iterator[tuple[Any, ...]], size: int
) -> Iterator[map[T]]:
    while chunk := tuple(islice(calls, size)):
        yield map(function, *zip(*chunk, strict=True))
