"""Who is connected: a session is one client process, an open connection of it is its lease."""

import array
import collections
import fcntl
import os
import select
import socket
import struct
import termios
import threading

from . import buffers, wire
from .spin import Spin

# A client that takes nothing of what it is sent for so long gets the rest from the control thread,
# whenever it goes on: it may be stopped, and every other client waits behind it.
STALL_SECONDS = 0.5

# What may wait for a client that does not read its output; more is dropped (the log has it all).
BACKLOG_BYTES = 1024 * 1024

# The most that is handed to the system at once: PyPy copies all that it is given.
PIECE_BYTES = 1024 * 1024


class Session:
    """One attached client process. `counts` and `types` belong to the main thread."""

    def __init__(self, session_id, client_pid, pickle_protocol):
        self.session_id = session_id
        self.client_pid = client_pid
        self.pickle_protocol = pickle_protocol
        self.connections = set()
        self.events = None  # the connection for what happens between calls
        self.has_events = threading.Event()
        self._untold = collections.deque()  # frames for it, until it has come
        self.counts = {}  # oid -> references that the client holds
        self.types = set()  # type ids that were described to it
        self.callbacks = None  # functions of its that are in use here
        self.pending = {}  # number of a callback that runs between its calls -> Pending
        self.segments = None  # that it lends and borrows
        self.has_news = False  # of them, for the client
        self.is_over = False
        self.descriptors = []  # its standard streams, for its programs
        self.main = None  # of its interactive session, see programs.py

    def take_descriptors(self):
        """Those that it has passed; whoever has them closes them. From either thread."""
        taken = []
        try:
            while True:
                taken.insert(0, self.descriptors.pop())
        except IndexError:
            return taken

    def close_descriptors(self):
        """They are not needed any more."""
        for descriptor in self.take_descriptors():
            os.close(descriptor)

    def tell(self, frame):
        """Send the client what belongs to no call; it opens its event connection before its first
        call, which may all the same be accepted later."""
        if self.events is not None:
            self.events.push(frame, is_dispensable=False)
            return
        self._untold.append(frame)
        if self.events is not None:
            self._tell_untold()  # it has come meanwhile, and may not have seen this

    def has_come(self, events):
        """Its event connection has been accepted."""
        self.events = events
        self.has_events.set()
        self._tell_untold()

    def _tell_untold(self):
        try:
            while True:
                self.events.push(self._untold.popleft(), is_dispensable=False)
        except IndexError:
            pass  # by both threads, perhaps, each frame once

    def pack(self, pickled, large):
        """The body of an answer with these buffers; the client fetches what it does not know."""
        return buffers.pack(pickled, large, self.segments.lender, _is_fetched)

    def unpack(self, body):
        """(pickle, buffers) of a request with buffers."""
        return buffers.unpack(body, self.segments.borrower, _is_passed_first)

    def refuse(self, flags, body):
        """What came from the client, with buffers perhaps, is not wanted."""
        if flags & wire.WITH_BUFFERS:
            buffers.refuse(body, self.segments.borrower)

    def news(self, connection):
        """The frame that tells of segments over this connection, where there is something to
        tell."""
        if not self.has_news:
            return b""
        self.has_news = False  # first: what comes now is told the next time, at the latest
        return wire.frame(wire.SEGMENTS, self.segments.news(connection))


def _is_fetched(loan):
    return True


def _is_passed_first(number):
    raise LookupError("no segment %d was passed" % number)


class Connection:
    """One accepted socket. Both threads poll it, so its descriptor closes when both let go of it:
    a number closed by one could be another connection's by the time the other looks at it."""

    def __init__(self, sock, connection_id, on_backlog):
        self.sock = sock
        self.fd = sock.fileno()
        self.connection_id = connection_id
        self.session = None
        self.reader = wire.FrameReader()
        self.spin = Spin(sock)
        self.frames = collections.deque()  # that have come and wait for their turn
        self.number = 0  # of the request begun last
        self.running = None  # the innermost request under way
        self.cancelled = set()  # numbers of requests that their client withdrew
        self.referenced = []  # numbers of the references in the answer being made
        self.held = None  # what HELD may ask for: see Requests._held
        self.kept = {}  # the same for pipelined requests: number -> what HELD may ask for
        self.is_over = False
        self.is_dropped = False  # the main thread reads no more of it
        self.descriptors = []  # that came with its first frame
        self.on_drained = None  # called with this connection once what its client left is read
        self._on_backlog = on_backlog  # called with this connection when a push has to wait
        self._holders = 2
        self._backlog = collections.deque()
        self._backlog_bytes = 0
        self.row = 0  # of pipelined requests that were answered without a pause
        self._gathered = []  # answers that wait for more, see gathering.py
        self.gathered_bytes = 0  # of these; counted until they are sent
        self.gathered_until = 0.0
        self._lock = threading.Lock()

    def send(self, data, is_dispensable=False):
        """Send a frame, as bytes or `Parts`, waiting for the client as long as it takes some of it
        now and then; what it does not take goes to the backlog, as by `push`. Raises OSError when
        the client is gone."""
        if self.gathered_bytes:
            with self._lock:
                data = b"".join(self._gathered) + data
                self._let_gathered_go()
        if type(data) is buffers.Parts:
            data.goes_over(self)
            for piece in data.pieces:
                self.send(piece, is_dispensable)
            return
        if self._backlog_bytes:  # counted until it is sent, so that nothing is overtaken
            self.push(data, is_dispensable)
            return
        sent = _send_now(self.sock, data)
        if sent == len(data):
            return
        view = memoryview(data)[sent:]
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        while view:
            if not poller.poll(STALL_SECONDS * 1000):
                self.push(bytes(view), is_dispensable=False)
                return
            view = view[_send_now(self.sock, view) :]

    def push(self, data, is_dispensable=True):
        """Send without waiting; what does not fit waits in a backlog, which is bounded for what is
        dispensable. From any thread."""
        if type(data) is buffers.Parts:
            data.goes_over(self)
            data = b"".join(data.pieces)
        with self._lock:
            if is_dispensable and self._backlog_bytes > BACKLOG_BYTES:
                return
            if self._gathered:
                data = b"".join(self._gathered + [data])
            try:
                sent = 0 if self._backlog else _send_now(self.sock, data)
            except OSError:
                sent = len(data)  # its hang-up is noticed where connections are polled
            self._let_gathered_go()
            if sent == len(data):
                return
            # A copy: it may be an array of user code's, which goes on, and may change it.
            self._backlog.append(bytes(memoryview(data)[sent:]))
            self._backlog_bytes += len(data) - sent
        self._on_backlog(self)

    def gather(self, data):
        """Have this frame sent in front of the next, or by `release`."""
        with self._lock:
            self._gathered.append(data)
            self.gathered_bytes += len(data)

    def release(self):
        """Push what was gathered. From any thread."""
        self.push(b"", is_dispensable=False)

    def _let_gathered_go(self):
        self._gathered.clear()
        self.gathered_bytes = 0

    def push_backlog(self):
        """Send what waits, as far as it goes; True if some still waits."""
        with self._lock:
            while self._backlog:
                data = self._backlog.popleft()
                try:
                    sent = _send_now(self.sock, data)
                except OSError:
                    self._backlog.clear()
                    self._backlog_bytes = 0
                    break
                self._backlog_bytes -= sent
                if sent < len(data):
                    self._backlog.appendleft(memoryview(data)[sent:])
                    return True
            return False

    def shut_down(self):
        """End the conversation for both sides; the descriptor stays until both threads let go."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close_descriptors(self):
        """What came and was not used."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def let_go(self):
        """One of the two threads is done with it."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        self.sock.close()


def _send_now(sock, data):
    if len(data) > PIECE_BYTES:
        data = memoryview(data)[:PIECE_BYTES]
    try:
        return sock.send(data, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0


def receive_with_descriptors(sock, size):
    """(data, descriptors) that have come; at most three descriptors."""
    if not hasattr(sock, "recvmsg"):
        return sock.recv(size, socket.MSG_DONTWAIT), []
    item = array.array("i", [0]).itemsize
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(3 * item), socket.MSG_DONTWAIT)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % item])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return data, list(descriptors)


def away_from_stdio(sock):
    """The socket, its descriptor above 2: where user code has closed 0 to 2, what is printed later
    would else be sent to whoever is connected there."""
    if sock.fileno() > 2:
        return sock
    moved = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 3)
    os.set_inheritable(moved, False)  # PyPy lacks F_DUPFD_CLOEXEC
    with sock:
        return socket.socket(sock.family, sock.type, sock.proto, moved)


def unread_bytes(sock):
    """How much has come and was not received yet; 0 where the platform does not tell."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]


def may_have_oneways(connection):
    """Is there a one-way call in what its client, which is gone, has sent last? Other requests that
    were not begun are of no use to anybody any more. True where it cannot be told."""
    count = unread_bytes(connection.sock)
    if not count:
        return False
    try:
        unread = connection.sock.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if connection.reader.in_frame or len(unread) < count:
            return True  # the main thread is in the middle of reading it
        frames = wire.FrameReader().feed(unread)
    except (OSError, MemoryError, wire.WireError):
        return True
    return any(flags & wire.ONEWAY for _, flags, _ in frames)


def peer_uid(sock):
    """The user at the other end of a unix socket, or None where the platform does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None  # the socket's directory is closed to others all the same
    credentials = struct.Struct("3i")
    _, uid, _ = credentials.unpack(sock.getsockopt(socket.SOL_SOCKET, option, credentials.size))
    return uid


def is_ours(sock):
    """May the process at the other end talk to us at all?"""
    return peer_uid(sock) in (None, os.getuid())
