"""A future that makes what waiting takes when somebody waits.

Of many calls at once few futures are ever waited for: their results are there when they are asked
for. The condition, its lock and the two lists of a `Future` take longer to make than a call takes.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, PENDING, RUNNING
from typing import Any


class LazyFuture(Future[Any]):
    """A `concurrent.futures.Future` in all else.

    Once another has looked, it has its condition and all goes the library's way; until then its
    maker alone knows it. `_making` tells the two apart.
    """

    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _is_watched = False

    def __init__(self) -> None:
        """Nothing of the library's yet, see `__getattr__`."""

    def __getattr__(self, name: str) -> Any:
        if name not in ("_condition", "_waiters", "_done_callbacks"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _making:
            if not self._is_watched:
                self._waiters: list[Any] = []
                self._done_callbacks: list[Any] = []
                self._condition = threading.Condition()
                self._is_watched = True
        return self.__dict__[name]

    def begin(self) -> bool:
        """It is about to be made; False where it was cancelled. May be called again."""
        with _making:
            if not self._is_watched or self._state == RUNNING:
                self._state = RUNNING
                return True
        return self.set_running_or_notify_cancel()

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        """It is over."""
        with _making:
            if not self._is_watched:
                self._result, self._exception, self._state = result, error, FINISHED
                return
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)

    def done(self) -> bool:
        return self._state == FINISHED or super().done()

    def result(self, timeout: float | None = None) -> Any:
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)


_making = threading.Lock()


def _after_fork_in_child() -> None:
    """The thread that held it is not here."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
