"""The main thread: loads the definition, then serves requests until the daemon ends.

The one rule: user code runs here, one request at a time, whatever client it is from; but for those
that come while one waits for a callback (see `floor.py`). While idle this thread reads its sockets
itself, so that a call needs no hand-over between threads. The control thread (`guard.py`) hands it
work by `post`.
"""

import collections
import contextlib
import functools
import os
import pickle
import select
import socket
import sys
import threading

from . import load, objects, output, wire
from .answers import Answers
from .borrower import settle
from .calls import Calls
from .drift import Drift
from .failures import KernelError, describe_error, error_frame, format_error
from .floor import Floor, Relief
from .gathering import Gathering
from .modules import Modules
from .refusals import turn_away
from .running import SAVING, Running
from .spin import READ_BYTES
from .state import State
from .tasks import Tasks

PIECE_BYTES = 1024 * 1024  # of a large body; PyPy prepares all the room that it is offered

# With several connections, so many requests in a row are taken from one before the others' turn.
FAIR_REQUESTS = 16

# What the definition prints before anybody is attached is kept for the one who started it.
LOAD_OUTPUT_BYTES = 1024 * 1024

NEW, LOADING, SERVING, FAILED = "new", "loading", "ready", "failed"


class Server:
    """The daemon's objects and the loop that answers for them.

    It may be made in a zygote, for all daemons that are forked from it; `preloaded` is what else
    that has begun. Then `begin` makes it one daemon's own.
    """

    def __init__(self, preloaded=None):
        self.exports = objects.Exports()
        self.answers = Answers(self.exports)
        self.drift = Drift(preloaded.modules if preloaded else Modules())
        self.state = NEW
        self.state_lock = threading.Lock()
        self.failure = None  # the exception of the definition
        self.waiting = []  # connections that have said hello and wait for READY
        self.listeners = []  # event connections, kept by the control thread
        self.floor = Floor()
        self.gathering = Gathering()
        self.tasks = Tasks()
        self.is_ending = False
        self.ending_reason = ""
        self.recycling = None  # what is to be done before the end
        self.watch = None  # of calls that must not take long
        self._may_leave = threading.Event()
        self.comes_back = False  # will the daemon be started anew once it has ended?
        self.forwards = True
        self.load_output = []
        self._load_output_bytes = 0
        self._main_thread = threading.get_ident()
        self.is_child = False
        self._connections = {}
        self._waiting = {}  # fd of a connection whose call waits for a callback -> its relief
        self._inbox = collections.deque()
        self._poller = select.poll()
        self.calls = Calls(self)
        self._preloaded = preloaded
        self.has_output = False  # do the streams hold back a part of a line, perhaps?
        if preloaded is None:
            self._streams = output.install(self)
        else:
            self._streams = output.take_over(preloaded.streams, self)
            self.drift.start()
            for each in _OFTEN_DESCRIBED:
                self.exports.describe(each)

    def begin(self, name, runtime):
        """Be the daemon of this name, before anything else: whatever one process alone may have."""
        self.name = name
        self.saved = State(runtime, name)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, select.POLLIN)

    # --- called by the control thread ---

    def post(self, action, *args):
        """Have the main thread do `action(*args)` as soon as it is idle."""
        self._inbox.append((action, args))
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def leave_to_parent(self):
        """In a forked child of user code: it must take none of our wake-ups, and serve nobody."""
        self.forwards = False
        self.is_child = True
        self.calls.leave_to_parent()
        self.tasks.leave_to_parent()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def exit_child(self, error):
        """A forked child has come back from the call that forked it: it ends as a script would,
        but for what its parent has registered with atexit."""
        code = 0
        if error is not None:
            code = error.code if isinstance(error, SystemExit) else 1
            if not isinstance(error, SystemExit):
                os.write(2, format_error(error).encode("utf-8", "backslashreplace"))
        self.flush()
        os._exit(code if isinstance(code, int) else 1)

    def end(self, reason, comes_back=False):
        """Leave the loop: at once when idle, else by interrupting what runs. Nobody is adopted
        any more."""
        self.comes_back = comes_back
        self.recycling = None
        self._may_leave.set()
        self._leave(reason)
        self.calls.interrupt()

    def leave_to_save(self, reason):
        """Have the main thread leave its loop to save the state; what runs is interrupted, but not
        the saving, which may have begun in between."""
        self._leave(reason)
        running = self.calls.busy
        if running is not None and running.kind != SAVING:
            self.calls.interrupt_running(running)

    def _leave(self, reason):
        self.ending_reason = reason
        self.is_ending = True
        self.post(lambda: None)

    # --- the loop ---

    def run(self):
        """Serve until `end()`."""
        is_over = has_saved = False
        while not is_over:
            while not self.is_ending:
                try:
                    self._turn()
                    self._see_to_recycling()
                except KeyboardInterrupt:
                    pass  # it came a moment too late: what it was meant for is over
            order = self.recycling
            has_saved = order is not None and self._recycle(order)
            is_over = has_saved or self._may_leave.is_set()
        while self._inbox:
            action, args = self._inbox.popleft()
            if action == self.adopt:
                action(*args)
        turn_away(self, list(self._connections.values()), carries_oneways=has_saved)

    # --- making room for a successor, see recycling.py ---

    def begin_recycling(self, order):
        """On the control thread: from now on requests for the root wait, and by name."""
        if not self.is_ending:
            self.recycling = order
            self._answer_all = functools.partial(order.answer_all, self)
            self.tasks.on_over = order.on_task_over

    def _see_to_recycling(self):
        order = self.recycling
        if order is not None and order.is_due(self, self._connections.values()):
            self.ending_reason = order.reason
            self.is_ending = True

    def _recycle(self, order):
        """True if nothing is in the way of the end any more; False if this daemon is kept."""
        try:
            self._save(order)
        except BaseException as error:
            if self.is_child:
                self.exit_child(error)
            self._keep(order, error)
            return False
        order.end()
        self._may_leave.wait()  # until nobody is let in any more
        return True

    def _save(self, order):
        order.saves_as = order.token  # another order may come meanwhile
        order.begin()
        self.calls.running = Running(None, 0, SAVING)
        try:
            order.has_saved = self.saved.save(self.exports.root, order.saves_as)
        finally:
            self.calls.running = None
            self.flush()

    def _keep(self, order, error):
        """The state cannot be saved: everything is as if nobody had asked."""
        if self.recycling is order:
            self.recycling = self.tasks.on_over = None
            self.is_ending = False
            del self._answer_all
            order.keep(error)
            self._take_up_again()

    def cancel_recycling(self):
        """Whoever gave the order has gone; what is urgent, or being saved, goes on all the same."""
        order = self.recycling
        if order is not None and not (order.is_urgent or self.is_ending):
            self.recycling = self.tasks.on_over = None
            del self._answer_all
            self._take_up_again()

    def _take_up_again(self):
        for connection in list(self._connections.values()):
            self.post(self._answer_late, connection)

    def _answer_late(self, connection):
        if connection.fd in self._connections:
            self._answer_all(connection)

    def _turn(self, is_idle=True):
        """Wait until there is something to do, and do it. While a call here waits for its callback
        the main thread is not idle, and others' requests are carried out by reliefs."""
        for fd in self._wait():
            if fd == self._wake_read:
                self._do_posted()
            elif fd in self._waiting:
                relief = self._waiting.pop(fd)
                if relief is None:
                    return  # the call that takes this turn itself
                self.floor.resume(relief)
            elif fd in self._connections and is_idle:
                self._serve(self._connections[fd])
            elif fd in self._connections:
                self.floor.lend(self._serve_once, self._connections[fd])

    def _wait(self):
        """The descriptors that have something to be read."""
        if self.watch is not None:
            self.watch.is_idle = True
        if not self.tasks.is_pending:
            ready = [fd for fd, _ in self._poller.poll()]
        else:
            ready = self.tasks.wait([self._wake_read] + list(self._connections))
            if self.is_child:
                self.exit_child(None)
        if self.watch is not None:
            self.watch.awake()
        return ready

    def wait_for(self, connection):
        """On a thread that has the floor, and whose call waits for a callback: let others go on
        until this connection has a frame, or (None) something was posted."""
        if connection is not None and self._spin(connection):
            return
        thread = threading.current_thread()
        relief = thread if type(thread) is Relief else None
        if connection is None:
            relief.wait() if relief else self._turn(is_idle=False)
            return
        while not (connection.frames or connection.is_over or self.is_ending):
            self._waiting[connection.fd] = relief
            if relief is None:
                self._turn(is_idle=False)
            else:
                relief.wait()
            if connection.fd not in self._waiting:
                self._receive(connection)
            self._waiting.pop(connection.fd, None)

    @contextlib.contextmanager
    def unread(self, connection):
        """Read nothing of this connection in here: its request waits, but not for the client that
        made it, and what that has sent besides comes after it."""
        is_read = connection is not None and connection.fd in self._connections
        if is_read:
            del self._connections[connection.fd]
            self._poller.unregister(connection.fd)
        try:
            yield
        finally:
            if is_read:
                self._connections[connection.fd] = connection
                self._poller.register(connection.fd, select.POLLIN)

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
        is_alone = len(self._connections) == 1 and not self.tasks.is_pending
        in_a_row = sys.maxsize if is_alone else FAIR_REQUESTS
        if self._serve_once(connection):
            for _ in range(in_a_row):
                if not self._spin(connection) or not self._answer_all(connection):
                    return

    def _serve_once(self, connection):
        return self._receive(connection) and self._answer_all(connection)

    def _spin(self, connection):
        """Try for a moment to receive what may be microseconds away; False when nothing came."""
        if connection.reader.in_frame:
            return False
        try:
            data = connection.spin.receive(self._inbox)
        except OSError:
            data = b""
        return data is not None and self._take(connection, data)

    def _receive(self, connection):
        """Receive once; False when there is nothing (more) to do now."""
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
        connection.frames.extend(connection.reader.filled(count))
        return True

    def _take(self, connection, data):
        if not data:
            self.drop(connection)
            return False
        try:
            connection.frames.extend(connection.reader.feed(data))
        except (wire.WireError, MemoryError):  # garbage, or a length that it is the same as
            self.drop(connection)
            return False
        return True

    def _answer_all(self, connection):
        """Carry out the requests that have come; False when no more should be read now."""
        frames = connection.frames
        answer = self.calls.answer
        while frames:
            kind, flags, body = frames.popleft()
            if not answer(connection, kind, flags, body) or self.is_ending:
                return False
        return True

    def drop(self, connection):
        """This connection is over for the main thread; the control thread settles its lease."""
        if self._connections.pop(connection.fd, None) is not None:
            self._poller.unregister(connection.fd)
            connection.is_over = connection.is_dropped = True
            connection.held = None
            connection.kept.clear()
            connection.frames.clear()
            connection.session.segments.connection_is_over(connection)
            connection.shut_down()  # the control thread sees a hang-up
            if connection.on_drained is not None:
                connection.on_drained(connection)
            connection.let_go()

    def adopt(self, connection):
        """Begin to read this connection, whose hello the control thread has answered."""
        if connection.is_over and connection.on_drained is None:
            connection.let_go()
            return
        self._connections[connection.fd] = connection
        self._poller.register(connection.fd, select.POLLIN)

    def segment_is_back(self, session):
        """Something is to be told of this session's segments; in the middle of any line."""
        session.has_news = True
        running = self.calls.running
        if (
            running is None
            or running.thread != threading.get_ident()
            or running.connection is None
            or running.connection.session is not session
        ):
            self.post(self.tell_news, session)  # else it goes with the answer

    def tell_news(self, session):
        """Tell the client of its segments, between its calls."""
        settle()
        if session.has_news and session.events is not None and not session.is_over:
            session.events.push(session.news(session.events), is_dispensable=False)

    def forget(self, session):
        """The last connection of a session is gone: so are its references."""
        if session.main is not None:
            session.main.end()
            session.main = None
        self.exports.release_all(session)

    def flush_pending(self):
        """Bring out the part of a line that the streams hold back."""
        if self.has_output:
            self.flush()

    def flush(self):
        """Bring out what the streams hold back."""
        self.has_output = False  # first: another thread may be printing
        for stream in self._streams:
            try:
                stream.flush()
            except (ValueError, OSError):
                pass  # closed by user code: their own streams, their own choice

    # --- the definition ---

    def load(self, header, payload, on_ready):
        """Carry out the definition and tell those who wait; (error, traceback) if it failed.

        `on_ready` is called before any client hears that it has not: what one of them then asks of
        the supervisor, that knows, too.
        """
        self.forwards = header.get("output") != "log"
        directories = header.get("sys_path", ())
        sys.path[:0] = [entry for entry in directories if entry not in sys.path]
        self.drift.begin(directories)
        self.calls.running = Running(None, 0, None)
        failure = None
        try:
            try:
                if self._preloaded is not None:
                    self._preloaded.replay(self)
                root = load.load(payload, header.get("preload", ()))
                if header.get("restore"):
                    self.saved.restore(root, header["restore"])
            finally:
                self.calls.running = None
        except BaseException as error:
            self.calls.running = None
            if self.is_child:
                self.exit_child(error)
            failure = self.calls.said_why(error, "DaemonStartError")
        if self.is_child:
            self.exit_child(None)
        self.flush()
        if failure is None:
            self.drift.loaded(root)
            self.exports.set_root(root)
            self.exports.describe(type(root))  # so that the control thread may welcome clients
            if type(root) is _Module and root.__name__.startswith(load.SCRIPT_PREFIX):
                self.answers.script_module = root.__name__
        else:
            # For the log; the clients get the exception itself.
            os.write(2, format_error(failure).encode("utf-8", "backslashreplace"))
        with self.state_lock:
            self.failure = failure
            self.state = SERVING if failure is None else FAILED
            if failure is None:
                on_ready()
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

    # --- output ---

    def forward(self, stream, data):
        """Pass on what was printed: to the caller, else to every client. Never raises."""
        if not self.forwards:
            return
        frame = wire.frame(wire.OUTPUT, data, stream)
        caller = self.calls.caller_here()
        if caller is not None:
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


_Module = type(sys)

# What most roots are, and have.
_OFTEN_DESCRIBED = (_Module, type(lambda: None), type(len), type)
