"""An executor of `concurrent.futures` whose workers are daemons, of any interpreter.

The one rule: a worker is a thread of the library's own ThreadPoolExecutor that owns one daemon. So
the queue, the shutdown, the end of the interpreter and all that is delicate about them are those
that the whole world uses; what is ours is the daemon of a thread.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import DaemonDied, InvalidRequest, SpawnyError
from .launch import run_script
from .options import Options, check_options
from .proxy import reference_of

if TYPE_CHECKING:
    from typing import Unpack

    from .proxy import ObjectProxy

P = ParamSpec("P")
T = TypeVar("T")

_SCRIPT = """
def call(function, args, kwargs):
    return function(*args, **kwargs)
"""

# Options that make no sense for daemons that come and go with their executor.
_NOT_OURS = ("name", "if_exists", "idle_timeout", "restart")

# What the starts of daemons say of themselves goes here, not to the terminal.
_logger = logging.getLogger("spawny.executor")


class Executor(ThreadPoolExecutor):
    """A `concurrent.futures.Executor` whose calls run in daemons of their own.

    There are at most `max_workers` of them (default: one for each processor), started as they are
    needed; they end with the executor. `python_exe` and `options` are those of `run_script`, such
    as `preload=("numpy",)`. Each daemon calls `initializer(*initargs)` before anything else.

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
        **options: Unpack[Options],
    ) -> None:
        check_options(options)
        for key in _NOT_OURS:
            if key in options:
                raise InvalidRequest(f"an executor's daemons have no option {key!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        # A worker must know nothing of the executor, or this would never be collected.
        self._worker = _Worker(python_exe, options, initializer, initargs)
        super().__init__(
            os.cpu_count() if max_workers is None else max_workers,
            "spawny-executor",
            None if initializer is None else self._worker.begin,
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


class _Worker(threading.local):
    """A thread's daemon: it starts with the first call, and ends with the thread."""

    root: ObjectProxy | None = None

    def __init__(
        self,
        python_exe: str | os.PathLike[str] | None,
        options: Options,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self._python_exe = python_exe
        self._options = options
        self._initializer = initializer
        self._initargs = initargs

    def begin(self) -> None:
        """What the library takes for the initializer: where it fails, the executor is broken."""
        # A daemon that cannot start has more to say than this; its first call will say it.
        with suppress(SpawnyError):
            self._start()
        if self.root is not None:
            self._initialize(self.root)

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.root is None or not _is_alive(self.root):
            self.root = None  # a new one comes up where the old one was
            self._initialize(self._start())
        assert self.root is not None
        return self.root.call(function, args, kwargs)

    def _start(self) -> ObjectProxy:
        self.root = run_script(_SCRIPT, self._python_exe, _logger, **self._options)
        return self.root

    def _initialize(self, root: ObjectProxy) -> None:
        if self._initializer is None:
            return
        try:
            root.call(self._initializer, self._initargs, {})
        except BaseException:
            self.root = None
            raise


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
