"""Answers that wait for those behind them, to be sent at once: a send takes longer than a call.

The one rule: an answer waits only while the next request is there already, and no longer than a
moment. The main thread sees to that between two calls, the control thread while one runs: its call
may take hours, and nobody is to wait for the answers before it. Only after a row of answers does
one wait at all; so few calls are answered as they always were, and nothing here runs for them.
"""

from . import wire

# So many are sent by themselves first.
ROW = 16
# Together they are no more than a client's read takes at once.
MOST_BYTES = 32 * 1024
# What is lost of answers where the daemon is killed, and what others may see too late.
MOMENT_SECONDS = 0.001

_PIPELINED = wire.PIPELINED | wire.FOLLOWED


def _do_nothing(*args):
    pass


class Gathering:
    """Those of all connections."""

    def __init__(self):
        self.look_at = None  # when the control thread is to call `look`
        self.wake = _do_nothing  # has it call a function
        self._connections = set()  # that may have some

    def takes(self, connection, flags, reply, now):
        """On the main thread: does this answer wait, by now? Else it is to be sent, after those
        that do."""
        if not (flags & _PIPELINED and connection.frames):
            connection.row = 0
            return False
        connection.row += 1
        if connection.row <= ROW or type(reply) is not bytes or len(reply) > MOST_BYTES:
            return False
        if not connection.gathered_bytes:
            connection.gathered_until = now + MOMENT_SECONDS
        elif now > connection.gathered_until or connection.gathered_bytes > MOST_BYTES:
            return False
        connection.gather(reply)
        # In this order; `look` goes the other way round, so that one of the two sees the other.
        self._connections.add(connection)
        if self.look_at is None:
            self.look_at = connection.gathered_until
            self.wake(_do_nothing)  # it then knows when to look
        return True

    def look(self, now):
        """On the control thread."""
        was_busy = bool(self._connections)
        self.look_at = None
        for connection in list(self._connections):
            self._connections.discard(connection)
            if connection.gathered_bytes and now >= connection.gathered_until:
                connection.release()
            elif connection.gathered_bytes:
                self._connections.add(connection)
        if was_busy or self._connections:  # once more, or it would be woken for each row
            self.look_at = now + MOMENT_SECONDS
