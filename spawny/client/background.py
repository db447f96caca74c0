"""What happens between calls: one thread per process, for all its sessions.

It prints what a daemon's own threads print, sends the releases of collected proxies when no call
does, leaves a daemon when its last proxy is gone, and says when one has ended. Calls never pass
through it.
"""

from __future__ import annotations

import codecs
import os
import select
import socket
import threading
import weakref
from contextlib import suppress

from ..kernel import wire
from .channel import show
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


class Events:
    """A session's event connection. It must not keep the session alive: proxies do that."""

    def __init__(self, session: Session, sock: socket.socket) -> None:
        self.sock = sock
        self.session = weakref.ref(session)
        self.name = session.name
        self.pid = session.pid
        self._reader = wire.FrameReader()
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
        self._ending: str | None = None

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
        return bool(data)

    def over(self) -> None:
        """The daemon has ended, or is not ours any more."""
        session = self.session()
        if self._ending is not None:
            log("info", "[DaemonProxy] daemon process %s has ended: %s", self.pid, self._ending)
            if session is not None:
                session.ended(f"has ended: {self._ending}", may_come_back=True)
        self.sock.close()


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="spawny-background", daemon=True)
        self.poller = select.poll()
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        self.poller.register(self.wake_read, select.POLLIN)
        self.by_fd: dict[int, Events] = {}

    def run(self) -> None:
        while True:
            for fd, _ in self.poller.poll():
                if fd == self.wake_read:
                    os.read(fd, 4096)
                    self._flush()
                elif not self.by_fd[fd].read():
                    # In this order: once it is closed, another thread may get the number.
                    self.poller.unregister(fd)
                    self.by_fd.pop(fd).over()

    def _flush(self) -> None:
        for events in list(self.by_fd.values()):
            session = events.session()
            if session is not None:
                session.tidy()


_thread: _Thread | None = None
_lock = threading.Lock()


def listen(session: Session, sock: socket.socket) -> Events:
    """Watch this event connection from now on."""
    global _thread
    events = Events(session, sock)
    with _lock:
        if _thread is None:
            _thread = _Thread()
            _thread.start()
        thread = _thread
    thread.by_fd[sock.fileno()] = events
    # A registration from here counts from the next poll on, which the wake-up begins.
    thread.poller.register(sock.fileno(), select.POLLIN)
    wake()
    return events


def wake() -> None:
    """Have released proxies sent; safe inside a finalizer."""
    if _thread is not None:
        with suppress(OSError):  # full of wake-ups already
            os.write(_thread.wake_write, b"!")


def forked() -> None:
    """In a forked child there is no such thread yet."""
    global _thread, _lock
    if _thread is not None:
        os.close(_thread.wake_read)
        os.close(_thread.wake_write)
    _thread = None
    _lock = threading.Lock()
