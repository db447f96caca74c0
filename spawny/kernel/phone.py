"""The daemon's end of the link: it phones home, reports, and does what the supervisor wants.

The one rule: a daemon without a supervisor is as good as one with, and so nothing here waits for
it, or fails for want of it. What the messages mean is written in docs/protocol-link.md.

A new report is a call of `report`; a new command is a method here and a row in `_COMMANDS`.
"""

import socket
import time

from . import link
from .answers import describe_interpreter
from .failures import TEXT_LIMIT
from .recycling import Recycling
from .running import stacks
from .server import LOADING, NEW
from .sessions import Connection, away_from_stdio, is_ours

# A new supervisor pokes every daemon, so this slow knocking is only the second line.
LINK_RETRY_SECONDS = 5

# More would be memory that the system maps anew for each ping.
READ_BYTES = 64 * 1024


class Phone:
    """Owned by the `Guard`, on whose thread all of it runs, but for `_load`; any may `report`.

    `ring_at` is when `connect` is to be called again, or None.
    """

    def __init__(self, guard, path, name, token, pid):
        self.connection = None  # while there is a supervisor
        self.ring_at = None
        self._guard = guard
        self._server = guard.server
        self._path = path
        self._identity = {"name": name, "token": token, "pid": pid}
        self._decoder = None

    def connect(self):
        """To the supervisor that there is now, if any; what was before is over."""
        if self.connection is not None:
            self._guard.hung_up(self.connection)
        self.ring_at = None
        self._guard.look_after_socket()
        try:
            sock = away_from_stdio(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        except OSError:  # there are no descriptors, for now
            self.ring_at = time.monotonic() + LINK_RETRY_SECONDS
            return
        try:
            sock.setblocking(False)  # a supervisor that is stopped must not stop us
            sock.connect(self._path)
            if not is_ours(sock):
                raise OSError("the link belongs to another user")
        except OSError:
            sock.close()
            self.ring_at = time.monotonic() + LINK_RETRY_SECONDS
            return
        self.connection = Connection(sock, 0, self._guard.has_backlog)
        self._decoder = link.Decoder()
        self._guard.admit(self.connection)
        self.report(
            dict(
                describe_interpreter(),
                type="hello",
                link=link.PROTOCOL,
                state=self._server.state,
                **self._identity,
                **self._figures(),
            )
        )

    def lost(self):
        """The connection is over; the guard lets go of it."""
        self.connection = None
        self.ring_at = time.monotonic() + LINK_RETRY_SECONDS
        # Nobody would start the next one now. The next supervisor looks at the limits for itself.
        self._server.post(self._server.cancel_recycling)

    def report(self, header):
        """Tell the supervisor, where there is one; from either thread."""
        connection = self.connection
        if connection is not None:
            connection.push(link.encode(header))

    def read(self):
        """The supervisor has said something, or has gone."""
        try:
            data = self.connection.sock.recv(READ_BYTES)
        except OSError:
            data = b""  # killed, with words of ours unread
        if not data:
            self._guard.hung_up(self.connection)
            return
        for header, blob in self._decoder.feed(data):
            command = self._COMMANDS.get(header["type"])
            if command is not None:  # a newer supervisor may know more
                command(self, header, blob)

    def limit_reached(self, calls):
        """On the main thread: so many calls were to be told."""
        self.report({"type": "limit", "calls": calls})

    def _answer(self, header, kind, **fields):
        """Report what this command asks for."""
        self.report(dict(fields, type=kind, id=header.get("id")))

    def _figures(self):
        return {"clients": len(self._guard.sessions), "calls": self._server.calls.count}

    # --- commands ---

    def _on_load(self, header, blob):
        if self._server.state != NEW:
            return
        self._guard.loading_began(header)
        self._server.state = LOADING
        self._server.post(self._load, header, blob)

    def _load(self, header, blob):
        """On the main thread: carry the definition out and report."""
        began = time.monotonic()

        def is_ready():
            self.report({"type": "ready", "seconds": round(time.monotonic() - began, 6)})

        failure = self._server.load(header, blob, is_ready)
        if failure is not None:
            self._guard.exit_code = 1
            error, trace = (text[-TEXT_LIMIT:] for text in failure)
            self.report({"type": "failed", "error": error, "traceback": trace})
        self._guard.ask(self._guard.loading_ended, failure is None)

    def _on_ping(self, header, blob):
        self._guard.look_after_socket()
        running = self._server.calls.busy
        busy = running and running.describe(self._server.exports)
        calls = self._server.calls.figures()
        drift = self._server.drift.texts()
        self._answer(header, "pong", busy=busy, figures=calls, drift=drift, **self._figures())

    def _on_stacks(self, header, blob):
        self._answer(header, "stacks", text=stacks())

    def _on_interrupt(self, header, blob):
        calls, call = self._server.calls, header.get("call")
        if call is None:
            done = calls.interrupt()
        else:
            connection = self._guard.connection(call[0])
            done = connection and calls.limit_reached(connection, call[1], str(header["reason"]))
        self._answer(header, "interrupted", done=bool(done))

    def _on_stop(self, header, blob):
        reason = str(header.get("reason") or "stop requested")
        self._guard.end(reason, header.get("comes_back") is True)

    def _on_recycle(self, header, blob):
        is_urgent = header.get("urgent") is True
        has_end = self._guard.definition.get("idle_timeout") is not None
        reason, token = str(header["reason"]), str(header["token"])
        self._guard.recycle(Recycling(reason, token, is_urgent, has_end and not is_urgent))

    _COMMANDS = {
        "load": _on_load,
        "ping": _on_ping,
        "stacks": _on_stacks,
        "interrupt": _on_interrupt,
        "recycle": _on_recycle,
        "stop": _on_stop,
    }
