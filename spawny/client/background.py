"""What happens between calls: two threads per process, for all its sessions.

The *listener* prints what a daemon's own threads print, and says when a daemon has ended. The
*janitor* hears of collected proxies, sends their releases when no call does, and leaves a daemon
when its last proxy is gone. Calls never pass through either.
"""

from __future__ import annotations

import codecs
import os
import select
import socket
import threading
import time
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue

from ..kernel import buffers, wire
from ..kernel.buffers import Parts
from .channel import show
from .interrupt import keep_off
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .references import Epitaph, ProxyRef
    from .session import Session


# Sessions that keep memory for the next message are looked at so often.
TIDY_SECONDS = 1.0


class Events:
    """A session's event connection. It must not keep the session alive: proxies do that."""

    def __init__(self, session: Session, sock: socket.socket) -> None:
        self.sock = sock
        self.session = weakref.ref(session)
        self.name = session.name
        self.pid = session.pid
        self.run_of_daemon = session.run
        self._reader = wire.FrameReader()
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
        self._ending: str | None = None
        self._comes_back = False
        self._sending = threading.Lock()

    def send(self, frame: bytes | Parts) -> None:
        """Send a whole frame; from any thread. Raises OSError when the daemon is gone."""
        with self._sending:
            if type(frame) is Parts:
                frame.goes_over(self)
                for piece in frame.pieces:
                    self.sock.sendall(piece)
            else:
                self.sock.sendall(frame)  # type: ignore[arg-type]  # bytes

    def leave(self) -> None:
        """The session is over; a daemon that ends with it will close this connection by that."""
        with suppress(OSError):  # it may have ended already
            self.sock.shutdown(socket.SHUT_WR)

    def read(self) -> bool:
        """Deal with what has come; False at the end of the daemon, or of its interest in us."""
        try:
            data = self.sock.recv(64 * 1024)
            frames = self._reader.feed(data)
        except (OSError, wire.WireError, MemoryError):
            data, frames = b"", []
        for kind, flags, body in frames:
            if kind == wire.OUTPUT:
                show(flags, self._decoders[flags].decode(body))
            elif kind == wire.ENDING:
                self._ending = body.decode("utf-8", "replace")
                self._comes_back = bool(flags & wire.COMES_BACK)
            elif (session := self.session()) is not None:
                session.on_event(self, kind, flags, body)
        return bool(data)

    def over(self) -> None:
        """The daemon has ended, or is not ours any more."""
        session = self.session()
        if self._ending is not None:
            log("info", "[DaemonProxy] daemon process %s has ended: %s", self.pid, self._ending)
            if session is not None:
                session.on_events_ended(self, f"has ended: {self._ending}", self._comes_back)
        elif session is not None:
            session.on_events_over(self)
        self.sock.close()


class _Listener(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="spawny-listener", daemon=True)
        self.poller = select.poll()
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        self.poller.register(self.wake_read, select.POLLIN)
        self.by_fd: dict[int, Events] = {}

    def run(self) -> None:
        keep_off()
        while True:
            for fd, _ in self.poller.poll():
                if fd == self.wake_read:
                    os.read(fd, 4096)
                elif not self.by_fd[fd].read():
                    # In this order: once it is closed, another thread may get the number.
                    self.poller.unregister(fd)
                    self.by_fd.pop(fd).over()

    def add(self, events: Events) -> None:
        """Watch this connection from now on."""
        fd = events.sock.fileno()
        self.by_fd[fd] = events
        # A registration from another thread counts from the next poll on, which this begins.
        self.poller.register(fd, select.POLLIN)
        with suppress(OSError):  # full of wake-ups already
            os.write(self.wake_write, b"!")


class _Janitor(threading.Thread):
    def __init__(self, collected: SimpleQueue[ProxyRef | Session]) -> None:
        super().__init__(name="spawny-janitor", daemon=True)
        self._collected = collected
        self._again: set[Session | Epitaph] = set()
        self._again_at = 0.0

    @property
    def _pause(self) -> float | None:
        return max(0.0, self._again_at - time.monotonic()) if self._again else None

    def run(self) -> None:
        keep_off()
        sessions: set[Session | Epitaph]
        while True:
            try:
                sessions = {self._take(self._collected.get(timeout=self._pause))}
            except Empty:
                sessions = set()
            for _ in range(self._collected.qsize()):  # no more: it may never be empty
                sessions.add(self._take(self._collected.get()))
            if buffers.due:
                from ..kernel.borrower import settle

                settle()
            if self._again and time.monotonic() >= self._again_at:
                sessions |= self._again  # others may keep us busy all the time
                self._again = set()
            again = {session for session in sessions if session.tidy()}
            if again and not self._again:
                self._again_at = time.monotonic() + TIDY_SECONDS
            self._again = again | (self._again - sessions)

    def _take(self, item: ProxyRef | Session) -> Session | Epitaph:
        if not isinstance(item, weakref.ref):
            return item
        session = item.reference.session
        session.release(item)
        return session


# Where weak references to proxies go when these are collected. Its `put` is C that may run in the
# middle of any line of any thread: no lock of ours can be held, and no Ctrl-C be lost, in it.
collected: SimpleQueue[ProxyRef | Session] = SimpleQueue()

_listener: _Listener | None = None
_lock = threading.Lock()


def listen(session: Session, sock: socket.socket) -> Events:
    """Watch this event connection from now on."""
    global _listener
    events = Events(session, sock)
    with _lock:
        if _listener is None:
            _listener = _Listener()
            _listener.start()
            _Janitor(collected).start()
        listener = _listener
    listener.add(events)
    return events


def forked() -> None:
    """In a forked child there are no such threads yet."""
    global _listener, _lock, collected
    if _listener is not None:
        os.close(_listener.wake_read)
        os.close(_listener.wake_write)
    _listener = None
    _lock = threading.Lock()
    collected = SimpleQueue()  # the parent's janitor may have been in the middle of the other
