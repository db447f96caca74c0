"""The control thread: accepts clients, phones home, and decides when the daemon ends.

The one rule: it runs no user code and never waits for anybody but in its own poll, so it answers
while the main thread is in a call of hours. (C code that keeps the GIL stops it, too; then the
supervisor's signals are what is left.)
"""

import array
import collections
import functools
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import traceback

from . import buffers, link, wire
from .answers import describe_interpreter
from .failures import TEXT_LIMIT
from .forks import at_fork
from .running import stacks
from .segments import Segments
from .server import LOADING, NEW, SERVING
from .sessions import (
    Connection,
    Session,
    away_from_stdio,
    is_ours,
    receive_with_descriptors,
    unread_bytes,
)

# The one who asked for this daemon connects within milliseconds; if it died instead, a daemon that
# ends with its last client must not wait for a first one for ever.
FIRST_ATTACH_SECONDS = 10
# An interpreter without a definition, whose supervisor is gone and stays gone, is of no use.
ORPHAN_SECONDS = 30
# The time for atexit functions and user threads; also how long a call may ignore its interrupt.
EXIT_SECONDS = 5
# A new supervisor pokes every daemon, so this slow knocking is only the second line.
LINK_RETRY_SECONDS = 5

# Sessions that keep memory for the next answer are looked at so often.
TRIM_SECONDS = 1.0

# When no connection can be accepted for want of descriptors.
LISTEN_AGAIN_SECONDS = 0.1

_HELLO_LIMIT = 64 * 1024

READ_BYTES = 64 * 1024


class Guard(threading.Thread):
    """Owns the listening socket, the link, and the sessions with their leases."""

    def __init__(self, server, name, token, runtime):
        super().__init__(name="spawny-control", daemon=True)
        self.exit_code = 0
        self._server = server
        self._daemon_name = name
        self._token = token
        self._link_path = os.path.join(runtime, "link.sock")
        self._call_path = os.path.join(runtime, "d", name + ".sock")
        self._poller = select.poll()
        self._by_fd = {}  # fd -> Connection, the link's included
        self._by_id = {}
        self._sessions = {}
        self._parting = []  # event connections of clients that have left and wait for our end
        self._next_id = 1
        self._link = None
        self._link_decoder = None
        self._link_retry_at = None
        self._listen_again_at = None
        self._trimming = []  # sessions that keep segments for their next answer
        self._trim_at = None
        self._had_client = False
        self._definition = {}  # the header of `load`
        self._end_at = time.monotonic() + ORPHAN_SECONDS
        self._end_reason = "no definition came"
        self._exit_at = None
        self._inbox = collections.deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, select.POLLIN)
        self._pid = os.getpid()
        self._listener = _listen(self._call_path)
        self._listener_inode = os.stat(self._call_path).st_ino
        self._poller.register(self._listener.fileno(), select.POLLIN)
        at_fork(after_in_child=self._leave_to_parent)

    def run(self):
        self._server.calls.control_thread = threading.get_ident()
        self._connect_link()
        while True:
            ready = self._poller.poll(self._poll_milliseconds())
            for fd, event in ready:
                try:
                    self._serve(fd, event)
                except Exception:  # one bad message never costs the daemon
                    traceback.print_exc()
                    if fd in self._by_fd:
                        self._hung_up(self._by_fd[fd])
            self._keep_time(time.monotonic(), is_quiet=not ready)

    def ask(self, action, *args):
        """Have this thread do `action(*args)`; from the main thread."""
        self._inbox.append((action, args))
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def _poll_milliseconds(self):
        if self._parting and self._exit_at is None:
            return 0
        times = (
            self._end_at,
            self._exit_at,
            self._link_retry_at,
            self._listen_again_at,
            self._trim_at,
        )
        due = [at for at in times if at is not None]
        if not due:
            return None
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1)

    def _keep_time(self, now, is_quiet):
        if self._link_retry_at is not None and now >= self._link_retry_at:
            self._connect_link()
        if self._listen_again_at is not None and now >= self._listen_again_at:
            self._listen_again_at = None
            self._poller.register(self._listener.fileno(), select.POLLIN)
        if self._trim_at is not None and now >= self._trim_at:
            self._trimming = [each for each in self._trimming if each.segments.trim()]
            self._trim_at = now + TRIM_SECONDS if self._trimming else None
        # Only once nothing waits: who left may have an event connection in the listener's backlog,
        # and somebody else may be knocking.
        if is_quiet and self._end_at is not None and now >= self._end_at:
            self.end(self._end_reason)
        if is_quiet and self._exit_at is None:
            for connection in self._parting:
                connection.let_go()
            self._parting = []
        if self._exit_at is not None and now >= self._exit_at:
            os._exit(self.exit_code)

    def _serve(self, fd, event):
        if fd == self._listener.fileno():
            self._accept()
            return
        if fd == self._wake_read:
            os.read(fd, 4096)
            while self._inbox:
                action, args = self._inbox.popleft()
                action(*args)
            return
        connection = self._by_fd.get(fd)
        if connection is None:
            return
        if event & select.POLLOUT and not connection.push_backlog():
            self._watch(connection)
        if event & select.POLLIN:
            if connection is self._link:
                self._read_link()
            elif connection.session is None:
                self._read_first(connection)
            else:
                self._read_events(connection)
        elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            if connection.session is None or not unread_bytes(connection.sock):
                self._hung_up(connection)
            else:
                self._leave_to_drain(connection)

    # --- clients ---

    def _accept(self):
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # Out of descriptors, as a rule: the knock stays, and would wake us again and again.
            self._poller.unregister(self._listener.fileno())
            self._listen_again_at = time.monotonic() + LISTEN_AGAIN_SECONDS
            return
        sock = away_from_stdio(sock)
        sock.setblocking(True)
        if not is_ours(sock):
            sock.close()
            return
        connection = Connection(sock, self._next_id, self._has_backlog)
        self._next_id += 1
        self._by_fd[connection.fd] = self._by_id[connection.connection_id] = connection
        self._watch(connection)

    def _watch(self, connection, wants_out=False):
        """Poll for what matters now. A call connection's bytes are the main thread's to read: of it
        only the hang-up matters, which poll reports unasked."""
        if connection.is_over:
            return
        is_call = connection.session is not None and connection is not connection.session.events
        events = 0 if is_call else select.POLLIN
        self._poller.register(connection.fd, events | (select.POLLOUT if wants_out else 0))

    def _has_backlog(self, connection):
        self.ask(self._watch, connection, True)

    def _read_first(self, connection):
        data, descriptors = receive_with_descriptors(connection.sock, _HELLO_LIMIT)
        connection.descriptors += descriptors
        try:
            frames = connection.reader.feed(data)
            if not data or len(frames) > 1:
                raise wire.WireError("a connection begins with one frame and waits")
            for kind, _, body in frames:
                self._first_frame(connection, kind, body)
        except (
            wire.WireError,
            MemoryError,
            pickle.UnpicklingError,
            ValueError,
            TypeError,
            EOFError,
        ):
            self._hung_up(connection)

    def _first_frame(self, connection, kind, body):
        if kind == wire.HELLO:
            self._greet(connection, *pickle.loads(body))
            return
        answer = None
        if kind == wire.INTERRUPT:
            connection_id, number = pickle.loads(body)
            target = self._by_id.get(connection_id)
            answer = target and self._server.calls.interrupt(target, number)
        elif kind == wire.TERMINATE:
            (reason,) = pickle.loads(body)
            answer = True
        elif kind == wire.POKE:
            self._connect_link()
        elif kind == wire.PASS:
            answer = self._borrow(connection, *pickle.loads(body))
        elif kind == wire.FETCH:
            self._pass(connection, *pickle.loads(body))
            return
        else:
            raise wire.WireError("no connection begins with a frame of kind %r" % kind)
        connection.push(wire.frame(wire.ACK, pickle.dumps(answer, 2)))
        self._hung_up(connection)
        if kind == wire.TERMINATE:
            self.end(reason)

    def _borrow(self, connection, session_id, number, size):
        """A client passes a segment; True if it can be lent to us from now on."""
        session = self._sessions.get(session_id)
        if session is None or not connection.descriptors:
            return False
        if session.segments.borrower.knows(number):
            return True  # it was passed, and the client was interrupted before it heard so
        try:
            session.segments.borrower.add(number, connection.descriptors.pop(), size)
        except (OSError, MemoryError):
            return False
        return True

    def _pass(self, connection, session_id, number):
        """Pass a segment to the client that it was lent to."""
        session = self._sessions.get(session_id)
        # (Held by that name until it is sent: its descriptor is closed when nobody has it.)
        loan = session.segments.lender.to_be_passed(number)
        frame = wire.frame(wire.ACK, pickle.dumps((loan.size,), 2))
        fds = array.array("i", loan.descriptors)
        connection.sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        self._hung_up(connection)

    def _greet(self, connection, protocol, *rest):
        if protocol != wire.PROTOCOL:
            text = "daemon %r speaks call protocol %r, the client %r: stop it and start it anew" % (
                self._daemon_name,
                wire.PROTOCOL,
                protocol,
            )
            body = (None, "spawny.errors", "VersionMismatch", text, "")
            connection.push(wire.frame(wire.ERROR, pickle.dumps(body, 2)))
            self._hung_up(connection)
            return
        session_id, role, client_pid, pickle_protocol, parent_id, can_borrow = rest
        session = self._sessions.get(session_id)
        is_attaching = session is None and parent_id is None
        if session is None:
            protocol = min(pickle_protocol, pickle.HIGHEST_PROTOCOL)
            session = Session(session_id, client_pid, protocol)
            session.segments = Segments(
                can_borrow and buffers.can_borrow(),
                functools.partial(self._server.segment_is_back, session),
                functools.partial(self.ask, self._trim_later, session),
            )
            self._sessions[session_id] = session
            parent = self._sessions.get(parent_id)
            if parent is not None:
                self._server.post(self._server.exports.inherit, session, parent)
            self._clients_changed()
        connection.session = session
        session.connections.add(connection)
        if role == wire.ROLE_EVENTS:
            session.events = connection
            session.has_events.set()
            with self._server.state_lock:
                self._server.listeners = self._server.listeners + [connection]
            self._watch(connection)
            return
        self._watch(connection)
        self._start_calls(connection, is_attaching)

    def _start_calls(self, connection, is_attaching):
        server = self._server
        started = dict(
            describe_interpreter(),
            protocol=wire.PROTOCOL,
            name=self._daemon_name,
            pid=self._pid,
            token=self._token,
            digest=self._definition.get("digest", ""),
            summary=self._definition.get("summary", ""),
            pickle_protocol=connection.session.pickle_protocol,
            can_borrow=buffers.can_borrow(),
            changed=server.modules.changed() if is_attaching else [],
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
            server.post(self._tell_failure, connection)

    def _tell_failure(self, connection):
        """On the main thread: the definition's exception for a client that came after it."""
        self._server.welcome(connection)
        self._server.adopt(connection)
        self.ask(self.end, "the definition failed")

    def _trim_later(self, session):
        if session not in self._trimming:
            self._trimming.append(session)
        self._trim_at = self._trim_at or time.monotonic() + TRIM_SECONDS

    def _hung_up(self, connection, stays_open=False):
        """This connection is over: its lease ends at once, whatever the main thread does."""
        if self._by_fd.get(connection.fd) is not connection:
            return
        del self._by_fd[connection.fd]
        if connection.on_drained is None:
            self._poller.unregister(connection.fd)
        # A request of it that still runs may be interrupted, if its client has given up the wait.
        self._by_id = {
            number: each
            for number, each in self._by_id.items()
            if each.running is not None or each.fd in self._by_fd
        }
        connection.is_over = True
        connection.close_descriptors()
        session = connection.session
        if connection is self._link:
            self._link = None
            self._link_retry_at = time.monotonic() + LINK_RETRY_SECONDS
        if session is None or connection is session.events:
            # The main thread never had it.
            with self._server.state_lock:
                self._server.listeners = [
                    one for one in self._server.listeners if one is not connection
                ]
            connection.let_go()
        if session is not None:
            session.connections.discard(connection)
            if not session.connections:
                del self._sessions[session.session_id]
                session.segments.close()
                self._server.calls.session_is_over(session)
                self._server.post(self._server.forget, session)
                self._clients_changed()
        if not stays_open:
            connection.let_go()

    def _leave_to_drain(self, connection):
        """The client is gone, but what it sent last may be one-way calls, which are carried out
        all the same: its lease ends when the main thread has read them."""
        connection.is_over = True
        connection.on_drained = self._drained
        self._poller.unregister(connection.fd)
        if connection.is_dropped:
            self._drained(connection)  # by the main thread, which did not know that it should tell

    def _drained(self, connection):
        self.ask(self._hung_up, connection)

    def _read_events(self, connection):
        """What callbacks gave back that ran between calls; the end of the client's interest."""
        try:
            data = connection.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            data = b""  # killed, with words of ours unread
        if not data:
            self._part(connection)
            return
        for kind, flags, body in connection.reader.feed(data):
            if kind not in (wire.RETURN, wire.RAISE):
                raise wire.WireError("an event connection carries no frames of kind %r" % kind)
            self._server.calls.returned(connection.session, kind, flags, body)

    def _part(self, connection):
        """A client has closed its half of its event connection: it leaves, but would like to know
        of our end. If it was the last, and we end with it, its socket stays open until we do."""
        self._hung_up(connection, stays_open=True)
        self._parting.append(connection)

    def _clients_changed(self):
        self._had_client = self._had_client or bool(self._sessions)
        self.report({"type": "clients", "clients": len(self._sessions)})
        self._set_idle_end()

    def _set_idle_end(self):
        """When the daemon ends for want of clients; never, where its idle_timeout is None."""
        timeout = self._definition.get("idle_timeout")
        is_loading = self._server.state in (NEW, LOADING)
        if self._sessions or timeout is None or (is_loading and not self._had_client):
            self._end_at = None
            return
        if not self._had_client:
            timeout = max(timeout, FIRST_ATTACH_SECONDS)
        self._end_at = time.monotonic() + timeout
        self._end_reason = "no client for %g s" % timeout if timeout else "its last client left"

    # --- the link ---

    def _connect_link(self):
        if self._link is not None:
            self._hung_up(self._link)
        self._link_retry_at = None
        sock = away_from_stdio(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            sock.setblocking(False)  # a supervisor that is stopped must not stop us
            sock.connect(self._link_path)
            if not is_ours(sock):
                raise OSError("the link belongs to another user")
        except OSError:
            sock.close()
            self._link_retry_at = time.monotonic() + LINK_RETRY_SECONDS
            return
        self._link = Connection(sock, 0, self._has_backlog)
        self._link_decoder = link.Decoder()
        self._by_fd[self._link.fd] = self._link
        self._watch(self._link)
        self.report(
            dict(
                describe_interpreter(),
                type="hello",
                link=link.PROTOCOL,
                name=self._daemon_name,
                token=self._token,
                pid=self._pid,
                state=self._server.state,
                clients=len(self._sessions),
                calls=self._server.calls.count,
            )
        )

    def report(self, header):
        """Tell the supervisor, where there is one; from either thread."""
        connection = self._link
        if connection is not None:
            connection.push(link.encode(header))

    def _read_link(self):
        try:
            data = self._link.sock.recv(1024 * 1024)
        except OSError:
            data = b""  # killed, with words of ours unread
        if not data:
            self._hung_up(self._link)
            return
        for header, blob in self._link_decoder.feed(data):
            action = self._LINK_ACTIONS.get(header["type"])
            if action is not None:  # a newer supervisor may know more
                action(self, header, blob)

    def _on_load(self, header, blob):
        if self._server.state != NEW:
            return
        self._definition = header
        self._server.state = LOADING
        self._end_at = None
        self._server.post(self._load, header, blob)

    def _load(self, header, blob):
        """On the main thread: carry the definition out and report."""
        began = time.monotonic()
        failure = self._server.load(header, blob)
        if failure is None:
            self.report({"type": "ready", "seconds": round(time.monotonic() - began, 6)})
            self.ask(self._set_idle_end)
            return
        self.exit_code = 1
        error, trace = (text[-TEXT_LIMIT:] for text in failure)
        self.report({"type": "failed", "error": error, "traceback": trace})
        self.ask(self._end_failed)

    def _end_failed(self):
        """Every client that was there has been told; one that is still to come gets its time."""
        if self._had_client:
            self.end("the definition failed")
        else:
            self._end_at = time.monotonic() + FIRST_ATTACH_SECONDS
            self._end_reason = "the definition failed"

    def _on_ping(self, header, blob):
        running = self._server.calls.busy
        self.report(
            {
                "type": "pong",
                "id": header.get("id"),
                "clients": len(self._sessions),
                "calls": self._server.calls.count,
                "busy": running and running.describe(self._server.exports),
            }
        )

    def _on_stacks(self, header, blob):
        self.report({"type": "stacks", "id": header.get("id"), "text": stacks()})

    def _on_interrupt(self, header, blob):
        done = self._server.calls.interrupt()
        self.report({"type": "interrupted", "id": header.get("id"), "done": bool(done)})

    def _on_stop(self, header, blob):
        self.end(str(header.get("reason") or "stop requested"))

    _LINK_ACTIONS = {
        "load": _on_load,
        "ping": _on_ping,
        "stacks": _on_stacks,
        "interrupt": _on_interrupt,
        "stop": _on_stop,
    }

    # --- the end ---

    def end(self, reason):
        """No new clients; what runs is interrupted; the interpreter shuts down, or is made to."""
        if self._exit_at is not None:
            return
        self._exit_at = time.monotonic() + EXIT_SECONDS
        self._end_at = None
        self._close_listener()
        self.report({"type": "ending", "reason": reason})
        goodbye = wire.frame(wire.ENDING, reason.encode("utf-8", "replace"))
        for connection in self._server.listeners + self._parting:
            connection.push(goodbye)
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            # Should C code keep the GIL, this thread cannot end the process; the system can.
            signal.setitimer(signal.ITIMER_REAL, EXIT_SECONDS + 1)
        self._server.end(reason)

    def _close_listener(self):
        try:
            # Another daemon of this name may have taken the path over.
            if os.stat(self._call_path).st_ino == self._listener_inode:
                os.unlink(self._call_path)
        except OSError:
            pass
        try:
            self._poller.unregister(self._listener.fileno())
        except (KeyError, ValueError):
            pass
        self._listener.close()

    def _leave_to_parent(self):
        """In a forked child of user code: let go of every socket, or clients of a daemon that died
        would wait for ever for an end of file that the child holds back."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._server.leave_to_parent()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._listener.close()
        for connection in list(self._by_fd.values()):
            connection.sock.close()


def _listen(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.connect(path)
    except OSError:
        pass  # nobody there, as it should be
    else:
        sys.exit("spawny: another daemon serves %s already" % path)
    listener.close()
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(umask)
    listener.listen(128)
    return listener
