"""The daemons of a pool, or of an executor with a name, which other programs use, too.

The one rule: a thread has at most one of them at a time, and there are at least as many as threads.
So one that is free of us is always there to be taken; whether it is free of others, it says.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..address import call_socket, runtime_directory
from ..kernel import wire
from .channel import errand
from .proxy import ObjectProxy, reference_of


class Workers:
    """Daemons that do calls; `spares` of them run beyond as many as were ever in use.

    `start` makes the one of a name, or finds it.
    """

    def __init__(
        self, names: Iterable[str], spares: int, start: Callable[[str], ObjectProxy]
    ) -> None:
        self._workers = [_Worker(name, start) for name in names]
        self._spares = spares
        self._lock = threading.Lock()  # of who is taken
        self._used = 0
        self._most_used = 0  # at a time
        self._is_closed = False
        self._starter: ThreadPoolExecutor | None = None

    def begin(self) -> None:
        """Have one started, if it need be."""
        with self.taken():
            pass

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """By the function `call` of a root."""
        with self.taken() as root:
            return root.call(function, args, kwargs)

    @contextmanager
    def taken(self) -> Iterator[ObjectProxy]:
        """The root of one that is idle, for a call: one that runs rather than one that has to be
        started; one that is busy with a call of another program only where there is no other."""
        worker = self._take()
        with self._lock:
            self._used += 1
            self._most_used = max(self._used, self._most_used)
        self._keep_spares()
        try:
            yield worker.started()
        finally:
            with self._lock:
                self._used -= 1
            self._give_back(worker)

    def close(self, wait: bool) -> None:
        """Leave those that do nothing for us, and the others when they have done it; `wait` for a
        spare that is being started."""
        with self._lock:
            self._is_closed = True
            starter, self._starter = self._starter, None
            for each in self._workers:
                if not each.is_taken:
                    each.root = None
        if starter is not None:
            starter.shutdown(wait, cancel_futures=True)

    def _take(self) -> _Worker:
        busy: list[_Worker] = []
        while True:
            worker = self._next(busy)
            if worker is None:
                random.shuffle(busy)  # or all programs would wait for the first
                return self._next([], busy) or self._take()
            if not worker.is_busy():
                return worker
            self._give_back(worker)
            busy.append(worker)

    def _next(self, but: list[_Worker], among: list[_Worker] | None = None) -> _Worker | None:
        """Take the first that is free of us, of those that run, then of those that do not."""
        with self._lock:
            free = [
                each
                for each in (self._workers if among is None else among)
                if not each.is_taken and each not in but
            ]
            found = min(free, key=lambda each: not each.seems_to_run(), default=None)
            if found is not None:
                found.is_taken = True
            return found

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if self._is_closed:
                worker.root = None
            worker.is_taken = False

    # --- spares ---

    def _keep_spares(self) -> None:
        """See to it, in the background, that so many run."""
        with self._lock:
            if self._is_closed or not self._spares:
                return
            if self._starter is None:
                self._starter = ThreadPoolExecutor(1, "spawny-spares")
            self._starter.submit(self._start_spares)

    def _start_spares(self) -> None:
        while (worker := self._missing()) is not None:
            try:
                if not worker.is_busy():  # which lets go of the root of one that has died
                    worker.started()
            except Exception:  # noqa: BLE001 (a call that needs it will say why)
                return
            finally:
                self._give_back(worker)

    def _missing(self) -> _Worker | None:
        """Take one that is to be started as a spare."""
        with self._lock:
            absent = [
                each for each in self._workers if not each.is_taken and not each.seems_to_run()
            ]
            running = len(self._workers) - len(absent)
            if self._is_closed or not absent or running >= self._most_used + self._spares:
                return None
            absent[0].is_taken = True
            return absent[0]


class _Worker:
    """One daemon, whether it runs or not."""

    def __init__(self, name: str, start: Callable[[str], ObjectProxy]) -> None:
        self._name = name
        self._start = start
        self._path = call_socket(runtime_directory(), name)
        self.root: ObjectProxy | None = None
        self.is_taken = False  # by a thread of ours

    def seems_to_run(self) -> bool:
        return os.path.exists(self._path)

    def is_busy(self) -> bool:
        """Does it run a call of somebody else's? One that does not run is not busy."""
        try:
            is_busy, pid = errand(self._path, wire.BUSY)
        except OSError:
            is_busy, pid = False, None
        if self.root is not None and reference_of(self.root).session.started["pid"] != pid:
            self.root = None  # it has died; what runs now, if anything does, is not initialized yet
        return bool(is_busy)

    def started(self) -> ObjectProxy:
        if self.root is None:
            self.root = self._start(self._name)
        return self.root
