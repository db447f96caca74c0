"""Waiting for what may be microseconds away, the same on both ends.

A wait begins with non-blocking reads, for a moment, before the process sleeps: an answer to a small
request is there sooner than a sleeper is awake. Between two reads the core is given to whoever else
wants it, which may be the other end.

The rule: the moment is a span of time, not a number of reads. With a core for each end it is some
fifteen of them, and with one core for both ends the first of them, since giving up the core is
enough for the other one to answer. But where more processes want to run than there are cores, it
takes all the time: they would take turns after each call, each finding the caches full of what
others left there. So a moment that was over by then is lost, whether the data is there or not; and
whoever has lost one sleeps at once the next time, after another one the next two times, and so on.
Thus next to nothing is lost on calls that take long, on a client that makes none, and on a machine
that has no core to spare. What is won counts anew.
"""

import os
from socket import MSG_DONTWAIT
from time import monotonic

READ_BYTES = 64 * 1024

# Measured on bare sockets, each end on a core of its own: 10 us a round trip in place of 35. What
# takes three times as long is little quicker by this. (With 50 us, 4 clients of 4 daemons on 2
# cores made a third less calls.)
SPIN_SECONDS = 30e-6

# After a hundred calls that took long, this many sleep before one is tried again.
MOST_SKIPPED = 64

_yield_core = getattr(os, "sched_yield", lambda: None)


class Spin:
    """What one end of a connection has learned of its waits."""

    __slots__ = ("_receive", "_skipped", "_left")

    def __init__(self, sock):
        self._receive = sock.recv
        self._skipped = 0  # waits after the last one that was lost
        self._left = 0  # of these

    def receive(self, reasons_to_stop=()):
        """What comes within a moment, b"" at the end of the stream; None if nothing has come, or
        there is a reason to stop. Raises OSError as `recv` does."""
        if self._left:
            self._left -= 1
            return None
        receive = self._receive
        end = monotonic() + SPIN_SECONDS
        while not reasons_to_stop:
            _yield_core()  # first: nothing comes in no time
            is_late = monotonic() > end
            try:
                data = receive(READ_BYTES, MSG_DONTWAIT)
            except BlockingIOError:
                if is_late:
                    self._lost()
                    return None
            else:
                if is_late:
                    self._lost()
                else:
                    self._skipped = 0
                return data
        return None

    def _lost(self):
        """Nothing came in time."""
        self._skipped = self._left = min(2 * self._skipped or 1, MOST_SKIPPED)
