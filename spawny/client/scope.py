"""How long calls may take, and their cancellation: a scope that calls are made in.

A scope is known to the context (`contextvars`) that entered it, so that each thread and each
asyncio task has its own. A call that runs out of time, or is cancelled, is interrupted in its
daemon, by the same KeyboardInterrupt that Ctrl-C makes there.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from .channel import Channel


# Three years; the system's timers do not count much further.
FOREVER_SECONDS = 1e8


class Scope:
    """Calls in it end when `seconds` have passed since it was entered, or when it is cancelled.

    It may be entered once at a time. Scopes nest: what ends the outer one ends the inner one.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.deadline: float | None = None  # of time.monotonic(), outer scopes considered
        self.is_cancelled = False
        self._outer: Scope | None = None
        self._token: Token[Scope | None] | None = None
        self._lock = threading.Lock()
        self._under_way: set[tuple[Channel, int]] = set()

    def __enter__(self) -> Scope:
        if self._token is not None:
            raise RuntimeError("this scope is entered already; make another one")
        self._outer = current.get()
        ends = [] if self.seconds is None else [time.monotonic() + self.seconds]
        if self._outer is not None and self._outer.deadline is not None:
            ends.append(self._outer.deadline)
        self.deadline = min(ends, default=None)
        self._token = current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        current.reset(self._token)
        self._token = None

    def cancel(self) -> None:
        """Interrupt the calls under way in this scope, and let no other begin; from any thread."""
        with self._lock:
            self.is_cancelled = True
            under_way = list(self._under_way)
        for channel, number in under_way:
            if channel.interrupt(number) == "withdrawn":
                with self._lock:
                    # Only while it still waits for that: another may have the channel by now.
                    if (channel, number) in self._under_way:
                        channel.hang_up()

    def ends_by_cancel(self) -> bool:
        """Was this scope, or one around it, cancelled?"""
        return self.is_cancelled or (self._outer is not None and self._outer.ends_by_cancel())

    def is_over(self) -> bool:
        """May nothing go on in this scope?"""
        return self.remaining() == 0 or self.ends_by_cancel()

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def begin(self, channel: Channel, number: int) -> bool:
        """This request is about to be sent; False where it must not be, the scope being over."""
        with self._lock:
            if self.is_cancelled:
                return False
            self._under_way.add((channel, number))
        return self._outer is None or self._outer.begin(channel, number)

    def end(self, channel: Channel, number: int) -> None:
        """That request is answered, or given up."""
        with self._lock:
            self._under_way.discard((channel, number))
        if self._outer is not None:
            self._outer.end(channel, number)


# The innermost scope that was entered in this context.
current: ContextVar[Scope | None] = ContextVar("spawny_scope", default=None)


def timeout(seconds: float) -> Scope:
    """A context manager: calls in it are interrupted, and raise `CallTimeout`, once `seconds` have
    passed since it was entered.

    The daemon stays usable. What cannot be interrupted there (C code that keeps running) goes on
    without us; its result is thrown away.
    """
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        from ..errors import InvalidRequest

        raise InvalidRequest(f"a timeout is a number of seconds, not {seconds!r}")
    return Scope(seconds if seconds < FOREVER_SECONDS else None)
