"""The main thread: loads the definition, then answers calls until the daemon ends.

The one rule: all user code runs here, one request at a time, whatever client it is from. While idle
this thread reads its sockets itself, so that a call needs no hand-over between threads. The control
thread (`guard.py`) hands it work by `post`, and interrupts it by a signal that only counts while
the very request it is meant for still runs.
"""

import collections
import contextlib
import io
import os
import pickle
import select
import signal
import socket
import sys
import threading

from . import load, objects, output, wire
from .answers import Answers, ReferenceUnpickler
from .failures import (
    KernelError,
    describe_error,
    error_frame,
    forget_traceback,
    format_error,
)
from .requests import Requests
from .running import Running

READ_BYTES = 64 * 1024
PIECE_BYTES = 1024 * 1024  # of a large body; PyPy prepares all the room that it is offered

# After an answer the next request is often microseconds away: so many non-blocking reads are tried
# before the thread sleeps in poll. Measured on bare sockets with both ends doing so: 10 us a round
# trip in place of 35.
SPIN_TRIES = 20
# With several connections, so many requests in a row are taken from one before the others' turn.
FAIR_REQUESTS = 16

# What the definition prints before anybody is attached is kept for the one who started it.
LOAD_OUTPUT_BYTES = 1024 * 1024

_yield_core = getattr(os, "sched_yield", lambda: None)

NEW, LOADING, SERVING, FAILED = "new", "loading", "ready", "failed"


class Server:
    """The daemon's objects and the loop that answers for them."""

    def __init__(self, name):
        self.name = name
        self.exports = objects.Exports()
        self.answers = Answers(self.exports)
        self.state = NEW
        self.state_lock = threading.Lock()
        self.failure = None  # the exception of the definition
        self.waiting = []  # connections that have said hello and wait for READY
        self.listeners = []  # event connections, kept by the control thread
        self.calls = 0
        self.running = None
        self.is_ending = False
        self.ending_reason = ""
        self.forwards = True
        self.load_output = []
        self._load_output_bytes = 0
        self._main_thread = threading.get_ident()
        self._settling = threading.Lock()  # a request is either over or interrupted
        self.is_child = False
        self._interrupts_held = False
        self._caller = None  # the connection that what is printed now belongs to
        self._connections = {}
        self._inbox = collections.deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller = select.poll()
        self._poller.register(self._wake_read, select.POLLIN)
        self._streams = output.install(self)
        self._handlers = Requests(self.exports, self.answers).handlers
        signal.signal(signal.SIGINT, self._on_interrupt)

    # --- called by the control thread ---

    def post(self, action, *args):
        """Have the main thread do `action(*args)` as soon as it is idle."""
        self._inbox.append((action, args))
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def interrupt(self, connection=None, number=None):
        """Raise KeyboardInterrupt in what runs now, if it is that request; False if it is over.

        A request that has not begun yet is marked, and will not begin.
        """
        if connection is not None:
            connection.cancelled = number
        running = self.running
        if connection is not None and (
            running is None or (running.connection, running.number) != (connection, number)
        ):
            return connection.number < number
        with self._settling:
            if running is None or self.running is not running:
                return False
            running.is_cancelled = True
        signal.pthread_kill(self._main_thread, signal.SIGINT)
        return True

    def leave_to_parent(self):
        """In a forked child of user code: it must take none of our wake-ups, and serve nobody."""
        self.forwards = False
        self.is_child = True
        self._caller = None
        self._settling = threading.Lock()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _exit_child(self, error):
        """A forked child has come back from the call that forked it: it ends as a script would,
        but for what its parent has registered with atexit."""
        code = 0
        if error is not None:
            code = error.code if isinstance(error, SystemExit) else 1
            if not isinstance(error, SystemExit):
                os.write(2, format_error(error).encode("utf-8", "backslashreplace"))
        self.flush()
        os._exit(code if isinstance(code, int) else 1)

    def end(self, reason):
        """Leave the loop: at once when idle, else by interrupting what runs."""
        self.ending_reason = reason
        self.is_ending = True
        self.post(lambda: None)
        self.interrupt()

    # --- the loop ---

    def run(self):
        """Serve until `end()`."""
        while not self.is_ending:
            try:
                for fd, _ in self._poller.poll():
                    if fd == self._wake_read:
                        self._do_posted()
                    elif fd in self._connections:
                        self._serve(self._connections[fd])
            except KeyboardInterrupt:
                pass  # it came a moment too late: what it was meant for is over

    def _do_posted(self):
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        while self._inbox:
            action, args = self._inbox.popleft()
            action(*args)

    def _serve(self, connection):
        """Answer what has come on this connection, and what follows at once."""
        if not self._read(connection):
            return
        receive = connection.sock.recv
        in_a_row = sys.maxsize if len(self._connections) == 1 else FAIR_REQUESTS
        for _ in range(in_a_row):
            for _ in range(SPIN_TRIES):
                try:
                    data = receive(READ_BYTES, socket.MSG_DONTWAIT)
                    break
                except BlockingIOError:
                    if self._inbox:
                        return
                    _yield_core()  # the client may be waiting for this very one
                except OSError:
                    data = b""
                    break
            else:
                return
            if not self._take(connection, data) or connection.reader.in_frame:
                return

    def _read(self, connection):
        """Receive once and answer what is complete; False when there is no more to do now."""
        view = connection.reader.wanted()
        try:
            if view is None:
                data = connection.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
                return self._take(connection, data)
            count = connection.sock.recv_into(view[:PIECE_BYTES], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if not count:
            self.drop(connection)
            return False
        return self._answer_all(connection, connection.reader.filled(count))

    def _take(self, connection, data):
        if not data:
            self.drop(connection)
            return False
        try:
            frames = connection.reader.feed(data)
        except (wire.WireError, MemoryError):  # garbage, or a length that it is the same as
            self.drop(connection)
            return False
        return self._answer_all(connection, frames)

    def _answer_all(self, connection, frames):
        for kind, flags, body in frames:
            if not self._answer(connection, kind, flags, body):
                return False
        return not self.is_ending

    def drop(self, connection):
        """This connection is over for the main thread; the control thread settles its lease."""
        if self._connections.pop(connection.fd, None) is not None:
            self._poller.unregister(connection.fd)
            connection.held = None
            connection.shut_down()  # the control thread sees a hang-up
            connection.let_go()

    def adopt(self, connection):
        """Begin to read this connection, whose hello the control thread has answered."""
        if connection.is_over:
            connection.let_go()
            return
        self._connections[connection.fd] = connection
        self._poller.register(connection.fd, select.POLLIN)

    def forget(self, session):
        """The last connection of a session is gone: so are its references."""
        self.exports.release_all(session)

    # --- one request ---

    def _answer(self, connection, kind, flags, body):
        if kind == wire.RELEASE:
            connection.held = None
            return self._release(connection, body)
        handler = self._handlers.get(kind)
        if handler is None or connection.is_over:
            self.drop(connection)  # garbage, or a client that is dead and does not want it any more
            return False
        connection.number += 1
        connection.referenced.clear()
        self._caller = connection
        try:
            self.running = running = Running(connection, connection.number, kind)
            request = running.request = self._load_request(body, flags)
            if connection.cancelled == connection.number:
                raise KeyboardInterrupt
            reply = handler(connection, flags, *request)
            self._settle(running)
        except BaseException as error:
            self.running = None
            if self.is_child:
                self._exit_child(error)
            reply = error_frame(connection, self._said_why(error, "DaemonDied"))
            forget_traceback(error)
        if self.is_child:
            self._exit_child(None)
        self.calls += 1
        out, err = self._streams
        if out.is_pending or err.is_pending:
            self.flush()  # the rest of a line belongs before the answer
        self._caller = None
        try:
            connection.send(reply)
        except OSError:
            for oid in connection.referenced:
                self.exports.release(connection.session, oid, 1)
            self.drop(connection)
            return False
        return True

    def _settle(self, running):
        """The request is done; an interrupt that was promised, but came too late, still counts."""
        with self._settling:
            self.running = None
        if running.is_cancelled:
            raise KeyboardInterrupt

    def _load_request(self, body, flags):
        try:
            if not flags & wire.WITH_REFERENCES:
                return pickle.loads(body)
            unpickler = ReferenceUnpickler(io.BytesIO(body))
            unpickler.exports = self.exports
            return unpickler.load()
        except objects.UnknownReference:
            raise
        except Exception as error:
            if getattr(error, "name", None) == "cloudpickle":
                remedy = "move that code into a module, or install cloudpickle there"
            else:
                remedy = "what they name must be importable there"
            _, kind, message = describe_error(error)
            text = "the arguments cannot be loaded in daemon %r (%s: %s): %s"
            text %= (self.name, kind, message, remedy)
            raise KernelError("Unsendable", text, format_error(error)) from None

    def _said_why(self, error, kind):
        """The error to report: a client must not take the end of the daemon for its own Ctrl-C."""
        if not (self.is_ending and issubclass(type(error), KeyboardInterrupt)):
            return error
        text = "daemon %r was ended while this ran: %s" % (self.name, self.ending_reason)
        return KernelError(kind, text, format_error(error))

    def flush(self):
        """Bring out what the streams hold back."""
        for stream in self._streams:
            try:
                stream.flush()
            except (ValueError, OSError):
                pass  # closed by user code: their own streams, their own choice

    def _release(self, connection, body):
        try:
            for oid, count in pickle.loads(body):
                self.exports.release(connection.session, oid, count)
        except Exception:  # unpickling garbage may raise anything
            self.drop(connection)
            return False
        return True

    # --- the definition ---

    def load(self, header, payload):
        """Carry out the definition and tell those who wait; (error, traceback) if it failed."""
        self.forwards = header.get("output") != "log"
        sys.path[:0] = [entry for entry in header.get("sys_path", ()) if entry not in sys.path]
        self.running = Running(None, 0, None)
        failure = None
        try:
            try:
                root = load.load(payload, header.get("preload", ()))
            finally:
                self.running = None
        except BaseException as error:
            self.running = None
            if self.is_child:
                self._exit_child(error)
            failure = self._said_why(error, "DaemonStartError")
        if self.is_child:
            self._exit_child(None)
        self.flush()
        if failure is None:
            self.exports.set_root(root)
            self.exports.describe(type(root))  # so that the control thread may welcome clients
            if type(root) is _Module and root.__name__.startswith("spawny_script_"):
                self.answers.script_module = root.__name__
        else:
            # For the log; the clients get the exception itself.
            os.write(2, format_error(failure).encode("utf-8", "backslashreplace"))
        with self.state_lock:
            self.failure = failure
            self.state = SERVING if failure is None else FAILED
            waiting, self.waiting = self.waiting, []
            if waiting:
                self.load_output = []  # whoever asked for the daemon is among those who saw it
        for connection in waiting:
            self.welcome(connection)
            self.adopt(connection)
        if failure is None:
            return None
        kind = getattr(failure, "kind", None) if type(failure) is KernelError else None
        _, name, message = describe_error(failure)
        return "%s: %s" % (kind or name, message), format_error(failure)

    def welcome(self, connection):
        """The last answer to a hello, once the definition is done with.

        The control thread may do this too, so that a busy daemon can be attached to: the root's
        reference changes no counts. A failure is for the main thread, as pickling it is user code.
        """
        if self.failure is not None:
            reply = error_frame(connection, self.failure)
        else:
            root = self.exports.reference(self.exports.root, connection.session)
            body = (root, connection.connection_id)
            reply = wire.frame(wire.READY, pickle.dumps(body, 4))
        connection.push(reply, is_dispensable=False)

    # --- output and interrupts ---

    def forward(self, stream, data):
        """Pass on what was printed: to the caller, else to every client. Never raises."""
        if not self.forwards:
            return
        frame = wire.frame(wire.OUTPUT, data, stream)
        caller = self._caller
        if caller is not None and threading.get_ident() == self._main_thread:
            try:
                caller.send(frame, is_dispensable=True)
            except OSError:
                pass  # gone; the answer will find out
            return
        if self.state in (NEW, LOADING):
            with self.state_lock:
                waiting = list(self.waiting)
                if self._load_output_bytes < LOAD_OUTPUT_BYTES:
                    self._load_output_bytes += len(data)
                    self.load_output.append(frame)
            for connection in waiting:
                connection.push(frame)
            return
        for connection in list(self.listeners):
            connection.push(frame)

    def _on_interrupt(self, signum, stack_frame):
        if not self._interrupts_held:
            self.check_interrupt()

    def check_interrupt(self):
        """Raise the KeyboardInterrupt that is due, if the request it is meant for still runs."""
        running = self.running
        if running is None or not running.is_cancelled:
            return
        if threading.get_ident() == self._main_thread:
            running.is_cancelled = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def interrupts_held(self):
        """No interrupt in here; one that came is raised by the next `check_interrupt`."""
        if threading.get_ident() != self._main_thread:
            yield  # signals are handled on the main thread alone
            return
        self._interrupts_held = True
        try:
            yield
        finally:
            self._interrupts_held = False


_Module = type(sys)
