"""What a client asks the control thread for, on a connection of its own: one frame and its answer.

The one rule is the control thread's: nothing here runs user code, or waits for anybody. A new
errand is a function here and a row in `_ERRANDS`.
"""

import array
import pickle
import socket

from . import wire
from .server import SERVING


def run(guard, connection, kind, body):
    """Do what the first frame of this connection asks for, answer it, and hang up.

    Raises WireError where no connection begins with such a frame.
    """
    errand = _ERRANDS.get(kind)
    if errand is None:
        raise wire.WireError("no connection begins with a frame of kind %r" % kind)
    errand(guard, connection, body)


def _answer(guard, connection, answer):
    connection.push(wire.frame(wire.ACK, pickle.dumps(answer, 2)))
    guard.hung_up(connection)


def _interrupt(guard, connection, body):
    """A request of another connection is of no more use; how far it had come."""
    connection_id, number = pickle.loads(body)
    target = guard.connection(connection_id)
    _answer(guard, connection, target and guard.server.calls.interrupt(target, number))


def _terminate(guard, connection, body):
    (reason,) = pickle.loads(body)
    _answer(guard, connection, True)
    guard.end(reason)


def _poke(guard, connection, body):
    """A new supervisor has come."""
    guard.phone.connect()
    _answer(guard, connection, None)


def _pass(guard, connection, body):
    """A client passes a segment; True if it can be lent to us from now on."""
    _answer(guard, connection, _borrow(guard, connection, *pickle.loads(body)))


def _borrow(guard, connection, session_id, number, size):
    session = guard.sessions.get(session_id)
    if session is None or not connection.descriptors:
        return False
    if session.segments.borrower.knows(number):
        return True  # it was passed, and the client was interrupted before it heard so
    try:
        session.segments.borrower.add(number, connection.descriptors.pop(), size)
    except (OSError, MemoryError):
        return False
    return True


def _take_streams(guard, connection, body):
    """A client passes its standard streams, for the programs that it is going to run here."""
    (session_id,) = pickle.loads(body)
    session = guard.sessions.get(session_id)
    is_taken = session is not None and len(connection.descriptors) == 3
    if is_taken:
        session.close_descriptors()
        while connection.descriptors:
            session.descriptors.insert(0, connection.descriptors.pop())
    _answer(guard, connection, is_taken)


def _tell_busy(guard, connection, body):
    """Would a request have to wait?"""
    server = guard.server
    is_busy = server.state != SERVING or server.calls.busy is not None
    _answer(guard, connection, (is_busy, guard.pid))


def _fetch(guard, connection, body):
    """Pass a segment to the client that it was lent to."""
    session_id, number = pickle.loads(body)
    session = guard.sessions.get(session_id)
    # (Held by that name until it is sent: its descriptor is closed when nobody has it.)
    loan = session.segments.lender.to_be_passed(number)
    frame = wire.frame(wire.ACK, pickle.dumps((loan.size,), 2))
    fds = array.array("i", loan.descriptors)
    connection.sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    guard.hung_up(connection)


_ERRANDS = {
    wire.INTERRUPT: _interrupt,
    wire.TERMINATE: _terminate,
    wire.POKE: _poke,
    wire.PASS: _pass,
    wire.FETCH: _fetch,
    wire.STREAMS: _take_streams,
    wire.BUSY: _tell_busy,
}
