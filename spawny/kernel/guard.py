"""The control thread: accepts clients, keeps their leases, and decides when the daemon ends.

The one rule: it runs no user code and never waits for anybody but in its own poll, so it answers
while the main thread is in a call of hours. (C code that keeps the GIL stops it, too; then the
supervisor's signals are what is left.) So it is with all that this thread runs: `greeting.py`,
`errands.py` and `phone.py`.
"""

import collections
import functools
import os
import pickle
import select
import signal
import socket
import threading
import time
import traceback

from . import errands, wire
from .failures import TEXT_LIMIT
from .forks import at_fork
from .greeting import greet, start_calls
from .listener import Listener, call_path
from .phone import Phone
from .recycling import SETTLE_SECONDS, tell
from .server import LOADING, NEW
from .sessions import (
    Connection,
    away_from_stdio,
    is_ours,
    may_have_oneways,
    receive_with_descriptors,
)
from .tasks import FETCH_SECONDS
from .watch import Watch

# The one who asked for this daemon connects within milliseconds; if it died instead, a daemon that
# ends with its last client must not wait for a first one for ever.
FIRST_ATTACH_SECONDS = 10
# An interpreter without a definition, whose supervisor is gone and stays gone, is of no use.
ORPHAN_SECONDS = 30
# The time for atexit functions and user threads; also how long a call may ignore its interrupt.
EXIT_SECONDS = 5

# Sessions that keep memory for the next answer are looked at so often.
TRIM_SECONDS = 1.0

# When no connection can be accepted for want of descriptors.
LISTEN_AGAIN_SECONDS = 0.1

_HELLO_LIMIT = 64 * 1024

READ_BYTES = 64 * 1024


class Guard(threading.Thread):
    """Owns the listening socket, the phone, and the sessions with their leases."""

    def __init__(self, server, name, token, runtime, listener=None):
        super().__init__(name="spawny-control", daemon=True)
        self.exit_code = 0
        self.server = server
        self.daemon_name = name
        self.token = token
        self._poller = select.poll()
        self._by_fd = {}  # fd -> Connection, the link's included
        self._by_id = {}
        self.sessions = {}  # id -> Session
        self._parting = []  # event connections of clients that have left and wait for our end
        self._next_id = 1
        self._listen_again_at = None
        self._trimming = []  # sessions that keep segments for their next answer
        self._trim_at = None
        self._had_client = False
        self.definition = {}  # the header of `load`
        self.early = []  # call connections that said hello before it came, as for `start_calls`
        self._end_at = time.monotonic() + ORPHAN_SECONDS
        self._end_reason = "no definition came"
        self._exit_at = None
        self._settled_at = None  # when to see to the order to make room for a successor
        self.call_watch = None  # of calls that must not take long
        self._inbox = collections.deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, select.POLLIN)
        self.pid = os.getpid()
        self.phone = Phone(self, os.path.join(runtime, "link.sock"), name, token, self.pid)
        self._listener = listener or Listener(call_path(runtime, name))
        self._poller.register(self._listener.fileno(), select.POLLIN)
        at_fork(after_in_child=self._leave_to_parent)

    def run(self):
        self.server.calls.control_thread = threading.get_ident()
        self.server.gathering.wake = self.ask
        self.phone.connect()
        while True:
            ready = self._poller.poll(self._poll_milliseconds())
            for fd, event in ready:
                try:
                    self._serve(fd, event)
                except Exception:  # one bad message never costs the daemon
                    traceback.print_exc()
                    if fd in self._by_fd:
                        self.hung_up(self._by_fd[fd])
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
            self.phone.ring_at,
            self._listen_again_at,
            self._trim_at,
            self._settled_at,
            self.call_watch and self.call_watch.look_at,
            self.server.calls.insist_at,
            self.server.gathering.look_at,
        )
        due = [at for at in times if at is not None]
        if not due:
            return None
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1)

    def _keep_time(self, now, is_quiet):
        if self.phone.ring_at is not None and now >= self.phone.ring_at:
            self.phone.connect()
        if self._listen_again_at is not None and now >= self._listen_again_at:
            self._listen_again_at = None
            self._poller.register(self._listener.fileno(), select.POLLIN)
        if self._trim_at is not None and now >= self._trim_at:
            self._trimming = [each for each in self._trimming if each.segments.trim()]
            self._trim_at = now + TRIM_SECONDS if self._trimming else None
        if self._settled_at is not None and now >= self._settled_at:
            self._settled()
        watch = self.call_watch
        if watch is not None and watch.look_at is not None and now >= watch.look_at:
            watch.look()
        calls = self.server.calls
        if calls.insist_at is not None and now >= calls.insist_at:
            calls.insist()
        gathering = self.server.gathering
        if gathering.look_at is not None and now >= gathering.look_at:
            gathering.look(now)
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
            self.watch(connection)
        if event & select.POLLIN:
            if connection is self.phone.connection:
                self.phone.read()
            elif connection.session is None:
                self._read_first(connection)
            else:
                self._read_events(connection)
        elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            if connection.session is None or not may_have_oneways(connection):
                self.hung_up(connection)
            else:
                self._leave_to_drain(connection)

    # --- clients ---

    def _accept(self):
        try:
            sock = self._listener.accept()
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
        connection = Connection(sock, self._next_id, self.has_backlog)
        self._next_id += 1
        self._by_id[connection.connection_id] = connection
        self.admit(connection)

    def look_after_socket(self):
        """Listen anew where somebody has removed our socket; now and then, on the occasion of
        something else."""
        if self._exit_at is not None or not self._listener.has_vanished():
            return
        # Whoever knocked before it vanished is let in.
        knocks = select.poll()
        knocks.register(self._listener.fileno(), select.POLLIN)
        while self._listen_again_at is None and knocks.poll(0):
            self._accept()
        fd = self._listener.fileno()
        try:
            self._listener.renew()
        except OSError:
            return  # its directory is gone, too, until there is a supervisor
        if self._listen_again_at is None:
            self._poller.unregister(fd)
            self._poller.register(self._listener.fileno(), select.POLLIN)

    def admit(self, connection):
        """Look after this connection from now on."""
        self._by_fd[connection.fd] = connection
        self.watch(connection)

    def connection(self, connection_id):
        """The client's connection of this number, if it is open or a request of it runs."""
        return self._by_id.get(connection_id)

    def watch(self, connection, wants_out=False):
        """Poll for what matters now. A call connection's bytes are the main thread's to read: of it
        only the hang-up matters, which poll reports unasked."""
        if connection.is_over:
            return
        is_call = connection.session is not None and connection is not connection.session.events
        events = 0 if is_call else select.POLLIN
        self._poller.register(connection.fd, events | (select.POLLOUT if wants_out else 0))

    def has_backlog(self, connection):
        """What it was sent waits until it takes more; from either thread."""
        self.ask(self.watch, connection, True)

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
            self.hung_up(connection)

    def _first_frame(self, connection, kind, body):
        if kind == wire.HELLO and self._exit_at is not None:
            self.hung_up(connection)  # it has sent no request yet, and shall send none
        elif kind == wire.HELLO:
            greet(self, connection, *pickle.loads(body))
        else:
            errands.run(self, connection, kind, body)

    def trim_later(self, session):
        """This session keeps memory for its next answer."""
        if session not in self._trimming:
            self._trimming.append(session)
        self._trim_at = self._trim_at or time.monotonic() + TRIM_SECONDS

    def hung_up(self, connection, stays_open=False):
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
        if connection is self.phone.connection:
            self.phone.lost()
        if session is None or connection is session.events:
            # The main thread never had it.
            with self.server.state_lock:
                self.server.listeners = [
                    one for one in self.server.listeners if one is not connection
                ]
            connection.let_go()
        if session is not None:
            session.connections.discard(connection)
            if not session.connections:
                del self.sessions[session.session_id]
                session.segments.close()
                self.server.calls.session_is_over(session)
                self.server.post(self.server.forget, session)
                self.clients_changed()
        if not stays_open:
            connection.let_go()

    def _leave_to_drain(self, connection):
        """The client is gone, but in what it sent last may be one-way calls, which are carried out
        all the same: its lease ends when the main thread has read them."""
        connection.is_over = True
        connection.session.close_descriptors()  # or who reads from its output would wait, too
        connection.on_drained = self._drained
        self._poller.unregister(connection.fd)
        if connection.is_dropped:
            self._drained(connection)  # by the main thread, which did not know that it should tell

    def _drained(self, connection):
        self.ask(self.hung_up, connection)

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
            self.server.calls.returned(connection.session, kind, flags, body)

    def _part(self, connection):
        """A client has closed its half of its event connection: it leaves, but would like to know
        of our end. If it was the last, and we end with it, its socket stays open until we do."""
        self.hung_up(connection, stays_open=True)
        self._parting.append(connection)

    def clients_changed(self):
        """A session has begun or ended."""
        self._had_client = self._had_client or bool(self.sessions)
        self.phone.report({"type": "clients", "clients": len(self.sessions)})
        self._set_idle_end()

    def _set_idle_end(self):
        """When the daemon ends for want of clients; never, where its idle_timeout is None."""
        timeout = self.definition.get("idle_timeout")
        is_loading = self.server.state in (NEW, LOADING)
        if self.sessions or timeout is None or (is_loading and not self._had_client):
            self._end_at = None
            return
        if not self._had_client:
            timeout = max(timeout, FIRST_ATTACH_SECONDS)
        self._end_at = time.monotonic() + timeout
        self._end_reason = "no client for %g s" % timeout if timeout else "its last client left"

    # --- the definition ---

    def loading_began(self, header):
        """A definition came, of this header of `load`."""
        self.definition = header
        for connection, is_attaching in self.early:
            start_calls(self, connection, is_attaching)
        self.early = []
        self._end_at = None
        self.server.calls.limit = header.get("max_calls") or -1
        self.server.calls.on_limit = self.phone.limit_reached
        if header.get("call_deadline"):
            self.call_watch = self.server.watch = Watch(self, header["call_deadline"])

    def loading_ended(self, is_well):
        """It was carried out, or failed. Every client that was there has been told so; one that is
        still to come gets its time."""
        if is_well:
            self._set_idle_end()
        elif self._had_client:
            self.end("the definition failed")
        else:
            self._end_at = time.monotonic() + FIRST_ATTACH_SECONDS
            self._end_reason = "the definition failed"

    # --- the end ---

    def recycle(self, order):
        """Make room for a successor as soon as nothing runs; what is urgent, now."""
        if self._exit_at is not None:
            return
        before = self.server.recycling
        if before is not None:
            before.is_urgent = before.is_urgent or order.is_urgent
            before.is_on_request = before.is_on_request and order.is_on_request
            before.reason, before.token = order.reason, order.token
            self._settle(before)
            return
        order.begin = functools.partial(self.phone.report, {"type": "saving"})
        order.end = functools.partial(self.ask, self._end_for, order)
        order.keep = functools.partial(self._kept, order)
        order.on_task_over = functools.partial(self.ask, self._settle, order)
        self.server.begin_recycling(order)
        self._settle(order)

    def _settle(self, order):
        """Look again when whoever was about to make the next request has made it."""
        self._settled_at = order.settles_at = time.monotonic() + SETTLE_SECONDS

    def _settled(self):
        self._settled_at = None
        order = self.server.recycling
        if order is not None and order.is_urgent and order.saves_as is None:
            self.server.leave_to_save(order.reason)
        else:
            self.server.post(lambda: None)
            if order is not None:
                # Nobody may come to fetch the result that it waits for.
                self._settled_at = time.monotonic() + FETCH_SECONDS

    def _end_for(self, order):
        saved = {"saved": order.has_saved, "token": order.saves_as}
        self.end(order.reason, comes_back=True, recycled=True, **saved)

    def _kept(self, order, error):
        text, trace = (each[-TEXT_LIMIT:] for each in tell(error))
        self.phone.report({"type": "kept", "token": order.token, "error": text, "traceback": trace})

    def end(self, reason, comes_back=False, **fields):
        """No new clients; what runs is interrupted; the interpreter shuts down, or is made to."""
        if self._exit_at is not None:
            return
        self._exit_at = time.monotonic() + EXIT_SECONDS
        self._end_at = None
        self._close_listener()
        self.phone.report(dict(fields, type="ending", reason=reason))
        flags = wire.COMES_BACK if comes_back else 0
        goodbye = wire.frame(wire.ENDING, reason.encode("utf-8", "replace"), flags)
        for connection in self.server.listeners + self._parting:
            connection.push(goodbye)
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            # Should C code keep the GIL, this thread cannot end the process; the system can.
            signal.setitimer(signal.ITIMER_REAL, EXIT_SECONDS + 1)
        self.server.end(reason, comes_back)

    def _close_listener(self):
        self._listener.unlink()
        try:
            self._poller.unregister(self._listener.fileno())
        except (KeyError, ValueError):
            pass
        self._listener.close()

    def _leave_to_parent(self):
        """In a forked child of user code: let go of every socket, or clients of a daemon that died
        would wait for ever for an end of file that the child holds back."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.server.leave_to_parent()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._listener.close()
        for connection in list(self._by_fd.values()):
            connection.sock.close()
