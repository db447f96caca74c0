"""How a connection of a session begins: its HELLO, and what the daemon says to that."""

import functools
import pickle

from . import buffers, wire
from .answers import describe_interpreter
from .segments import Segments
from .server import LOADING, NEW, SERVING
from .sessions import Session


def greet(guard, connection, protocol, *rest):
    """The HELLO of this connection, with these fields: it is of a session from now on."""
    if protocol != wire.PROTOCOL:
        text = "daemon %r speaks call protocol %r, the client %r: stop it and start it anew" % (
            guard.daemon_name,
            wire.PROTOCOL,
            protocol,
        )
        body = (None, "spawny.errors", "VersionMismatch", text, "")
        connection.push(wire.frame(wire.ERROR, pickle.dumps(body, 2)))
        guard.hung_up(connection)
        return
    session_id, role, client_pid, pickle_protocol, parent_id, can_borrow = rest
    _check(session_id, role, client_pid, pickle_protocol, parent_id)
    session = guard.sessions.get(session_id)
    is_attaching = session is None and parent_id is None
    if session is None:
        protocol = min(pickle_protocol, pickle.HIGHEST_PROTOCOL)
        session = Session(session_id, client_pid, protocol)
        session.segments = Segments(
            can_borrow and buffers.can_borrow(),
            functools.partial(guard.server.segment_is_back, session),
            functools.partial(guard.ask, guard.trim_later, session),
        )
        guard.sessions[session_id] = session
        parent = guard.sessions.get(parent_id)
        if parent is not None:
            guard.server.post(guard.server.exports.inherit, session, parent)
        guard.clients_changed()
    connection.session = session
    session.connections.add(connection)
    if role == wire.ROLE_EVENTS:
        session.has_come(connection)
        with guard.server.state_lock:
            guard.server.listeners = guard.server.listeners + [connection]
        guard.watch(connection)
        return
    guard.watch(connection)
    if guard.server.state == NEW:
        # What STARTED says of the definition is not known yet: nothing would be taken for another.
        guard.early.append((connection, is_attaching))
    else:
        start_calls(guard, connection, is_attaching)


def _check(session_id, role, client_pid, pickle_protocol, parent_id):
    """Raise WireError where a hello is none: a session made of half of one would never end, and a
    client without a pid would cost us the link, which tells of it."""
    if not (
        type(session_id) is str
        and role in (wire.ROLE_CALLS, wire.ROLE_EVENTS)
        and type(client_pid) is int
        and 0 <= client_pid < 1 << 31
        and type(pickle_protocol) is int
        and pickle_protocol >= 2
        and (parent_id is None or type(parent_id) is str)
    ):
        raise wire.WireError("garbage in a hello")


def start_calls(guard, connection, is_attaching):
    """What is said to a HELLO of a call connection, once a definition has come."""
    server = guard.server
    started = dict(
        describe_interpreter(),
        protocol=wire.PROTOCOL,
        name=guard.daemon_name,
        pid=guard.pid,
        token=guard.token,
        digest=guard.definition.get("digest", ""),
        summary=guard.definition.get("summary", ""),
        pickle_protocol=connection.session.pickle_protocol,
        can_borrow=buffers.can_borrow(),
        runs_programs=True,
        takes_followed=True,
        drift=server.drift.found() if is_attaching else [],
    )
    connection.push(wire.frame(wire.STARTED, pickle.dumps(started, 2)))
    with server.state_lock:
        # What the definition printed is for the first who comes: it is the one who asked.
        for frame in server.load_output:
            connection.push(frame)
        if server.state in (NEW, LOADING):
            server.waiting.append(connection)
            return
        server.load_output = []
    if server.state == SERVING:
        server.welcome(connection)
        server.post(server.adopt, connection)
    else:
        server.post(_tell_failure, guard, connection)


def _tell_failure(guard, connection):
    """On the main thread: the definition's exception for a client that came after it."""
    guard.server.welcome(connection)
    guard.server.adopt(connection)
    guard.ask(guard.end, "the definition failed")
