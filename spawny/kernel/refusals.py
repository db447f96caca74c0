"""At the end of a daemon: what has come and was not begun is told so, or carried out if it must be.

The one rule: whoever waits for an answer here learns that the call did not run; it is then his to
make it again. On the main thread, when it has left its loop.
"""

import os
import pickle
import socket

from . import wire
from .sessions import PIECE_BYTES

READ_BYTES = 64 * 1024

# What is no request.
_UNASKED = (wire.RELEASE, wire.SEGMENTS, wire.RETURN, wire.RAISE)


def turn_away(server, connections, carries_oneways):
    """Take nothing more on these connections, and answer what they have brought.

    One-way calls cannot be answered: they are carried out if `carries_oneways`, else the log says
    how many were not.
    """
    text = "daemon %r has ended (%s) before it began this, which was not run"
    text %= (server.name, server.ending_reason)
    failure = (None, "spawny.errors", "DaemonDied", text, "")
    flags = wire.NOT_RUN | (wire.COMES_BACK if server.comes_back else 0)
    refusal = wire.frame(wire.ERROR, pickle.dumps(failure, 4), flags)
    lost = 0
    for connection in connections:
        connection.release()
        for kind, flags, body in _rest_of(connection):
            if kind in _UNASKED:
                continue
            if not flags & wire.ONEWAY:
                connection.push(refusal, is_dispensable=False)
            elif carries_oneways:
                server.calls.answer(connection, kind, flags, body)
            else:
                lost += 1
    if lost:
        text = "%d one-way calls were not made: %s\n" % (lost, server.ending_reason)
        os.write(2, text.encode("utf-8", "backslashreplace"))


def _rest_of(connection):
    """The frames that have come; later ones fail at the client, and are known to have not come."""
    _receive_all(connection)  # first: not every system keeps what has come
    try:
        connection.sock.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # it is gone
    _receive_all(connection)
    while connection.frames:
        yield connection.frames.popleft()


def _receive_all(connection):
    sock, reader = connection.sock, connection.reader
    try:
        while True:
            view = reader.wanted()
            if view is None:
                data = sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
                if not data:
                    return
                connection.frames.extend(reader.feed(data))
            else:
                count = sock.recv_into(view[:PIECE_BYTES], 0, socket.MSG_DONTWAIT)
                if not count:
                    return
                connection.frames.extend(reader.filled(count))
    except (OSError, wire.WireError, MemoryError):
        pass  # there is no more, or what there is makes no sense
