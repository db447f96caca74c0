"""Ctrl-C during a remote call belongs to the call, wherever it runs.

A KeyboardInterrupt raised here, between a receive and the use of what it received, would lose bytes
of the answer. So while this thread waits, SIGINT raises nothing: its handler asks the daemon to
raise KeyboardInterrupt in the very call that we wait for, and the wait goes on until that call ends
as it likes, with the KeyboardInterrupt as a rule. A second Ctrl-C gives up the wait; but first the
daemon is asked, or a call that nobody waits for would keep it.

Python handles signals on the main thread, but the system may deliver them to any: it does when the
process was stopped or frozen meanwhile. Then nothing ends the main thread's wait. A program that
has no threads would have them by us, so no Ctrl-C comes to the listener and the janitor. (Threads
of ours that run the program's code, for what it has submitted, take signals as its own do.)
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What Ctrl-C must not break off takes less than a millisecond, unless the daemon is stopped.
LONGEST_SECONDS = 1.0

_MAIN_THREAD = threading.main_thread().ident

_own = threading.local()  # `before`, on threads of ours: what the program had them block


class PassingInterrupts:
    """While entered, Ctrl-C calls `interrupt()`, which says whether the call will heed it.

    Does nothing outside the main thread (Python handles signals there alone) and where the
    application has a SIGINT handler of its own. `is_due`: Ctrl-C was pressed already.
    """

    def __init__(self, interrupt: Callable[[], bool], is_due: bool = False) -> None:
        self._interrupt = interrupt
        self._is_due = is_due
        self._count = 0
        self._was_delivered = False
        self._is_on = False

    def __enter__(self) -> None:
        if is_ours():
            self._is_on = True
            signal.signal(signal.SIGINT, self._on_signal)
            if self._is_due:
                self._on_signal(signal.SIGINT, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_on:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._count and not self._was_delivered and error is None:
            raise KeyboardInterrupt  # the call was over already: the Ctrl-C is for what follows

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
        with HeldOff():
            self._was_delivered = self._interrupt()


class HeldOff:
    """While entered, Ctrl-C raises nothing; it does at the end, and at once after a second.

    Nothing in here may wait for a `PassingInterrupts`, which leaves the default handler behind.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._is_due = False
        self._until = 0.0

    def __enter__(self) -> None:
        if is_ours():
            self._until = time.monotonic() + LONGEST_SECONDS
            self._before = signal.signal(signal.SIGINT, self._on_signal)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._is_due:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_due = True
        if time.monotonic() > self._until:
            raise KeyboardInterrupt


def is_ours() -> bool:
    """Would Ctrl-C raise a KeyboardInterrupt on this thread, and nothing else?"""
    if threading.get_ident() != _MAIN_THREAD:
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True
    # One Ctrl-C after the other may have left ours there.
    return isinstance(getattr(handler, "__self__", None), PassingInterrupts | HeldOff)


def keep_off() -> None:
    """No Ctrl-C comes to this thread of ours any more."""
    _own.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))


@contextmanager
def as_the_program() -> Iterator[None]:
    """While entered on a thread of ours, it starts threads as the program would: the processes that
    these start, too, are to have a Ctrl-C."""
    before = getattr(_own, "before", None)
    if before is None:
        yield
        return
    ours = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)


def forked() -> None:
    """In a forked child the thread that forked is the main one."""
    global _MAIN_THREAD
    _MAIN_THREAD = threading.get_ident()
