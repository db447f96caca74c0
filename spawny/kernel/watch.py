"""The deadline of calls: whether one has been running for long, told to the supervisor.

The one rule: it costs an idle daemon nothing, and a call next to nothing. The control thread looks
at what runs as long as anything does. The main thread tells it when it has been woken, and that
only where no look is due anyway.
"""

import time


class Watch:
    """Says once of each call that it has been running for half the limit."""

    def __init__(self, guard, limit_seconds):
        self._guard = guard
        self._server = guard.server
        self._half = limit_seconds / 2
        self._told = None
        self.look_at = None  # when `look` is to be called again, or None
        self._is_armed = False
        self.is_idle = True  # is the main thread in its poll?

    def awake(self):
        """On the main thread: it has something to do."""
        # In this order; `look` goes the other way round, so that one of the two sees the other.
        self.is_idle = False
        if not self._is_armed:
            self._is_armed = True
            self._guard.ask(self.look)

    def look(self):
        """On the control thread."""
        now = time.monotonic()
        self.look_at = now + self._half
        running = self._server.calls.running
        if running is not None and running.connection is not None:
            due = running.since + self._half
            if running is self._told:
                return
            if now >= due:
                self._told = running
                self._report(running, now)
            else:
                self.look_at = due
        elif self.is_idle:
            self._told = None
            self._is_armed = False
            if self.is_idle:
                self.look_at = None
            else:
                self._is_armed = True

    def _report(self, running, now):
        described = running.describe(self._server.exports)
        self._guard.phone.report(
            {
                "type": "long",
                "connection": running.connection.connection_id,
                "call": running.number,
                "what": described["what"],
                "seconds": round(now - running.since, 6),
            }
        )
