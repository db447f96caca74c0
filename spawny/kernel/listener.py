"""The socket where clients knock, at a path that is known by the daemon's name alone."""

import os
import select
import socket
import sys
import time

from . import wire

BACKLOG = 128

# So long a daemon waits for another one that serves at its path.
OTHER_SECONDS = 5.0


def call_path(runtime, name):
    """Where clients look for the daemon of this name."""
    return os.path.join(runtime, "d", name + ".sock")


def bound(path):
    """A stream socket at this path that only this user can reach. Raises OSError.

    No umask is set for it: that would be the whole process's, where user code may run.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            # Linux makes the file with the mode of the socket: there is no moment without it.
            os.fchmod(sock.fileno(), 0o600)
        except OSError:
            pass  # EINVAL on macOS: until the chmod, its directory keeps others out
        sock.bind(path)
        os.chmod(path, 0o600)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Bound at this path, where nobody else is served; else the process exits."""

    def __init__(self, path):
        self._path = path
        self._sock = _listen(path)
        self._inode = os.stat(path).st_ino

    def fileno(self):
        """Its descriptor; -1 once it is closed."""
        return self._sock.fileno()

    def has_vanished(self):
        """Whether nobody finds it at its path. (Not if another daemon has taken the path over.)"""
        try:
            os.stat(self._path)
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def renew(self):
        """Listen at the path anew. Raises OSError, and then is as it was."""
        # Aside, until it listens: who is told that this daemon runs must not be turned away there.
        aside = self._path[:-1] + "~"  # as long: there is a limit
        _unlink(aside)
        sock = bound(aside)
        try:
            sock.listen(BACKLOG)
            inode = os.stat(aside).st_ino
            _move(aside, self._path)
        except OSError:
            sock.close()
            _unlink(aside)
            raise
        self._sock.close()
        self._sock, self._inode = sock, inode

    def accept(self):
        """The socket of one who knocks. Raises OSError."""
        return self._sock.accept()[0]

    def unlink(self):
        """Nobody is to find it any more."""
        try:
            # Another daemon of this name may have taken the path over.
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass

    def close(self):
        """Whoever is in its backlog is turned away; a forked child only lets go of it."""
        self._sock.close()


def _listen(path):
    give_up_at = time.monotonic() + OTHER_SECONDS
    while _is_served(path, give_up_at):
        if time.monotonic() >= give_up_at:
            sys.exit("spawny: another daemon serves %s already" % path)
    _unlink(path)
    listener = bound(path)
    listener.listen(BACKLOG)
    return listener


def _is_served(path, give_up_at):
    """Whether somebody listens there; if so, until he is gone or the time is over.

    It may be a daemon that an earlier supervisor has started for the same request: ours hears of it
    by its hello, and ends this process in its favour. Or it is about to end.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as watch:
        try:
            watch.connect(path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as poker:
                poker.connect(path)
                poker.sendall(wire.frame(wire.POKE))
        except OSError:
            return False
        poller = select.poll()
        poller.register(watch, select.POLLIN)  # nobody answers silence: it is the end
        poller.poll(max(0, give_up_at - time.monotonic()) * 1000)
    return True


def _move(aside, path):
    try:
        os.link(aside, path)
    except FileExistsError:
        raise  # another daemon has come meanwhile
    except OSError:
        os.rename(aside, path)  # where sockets cannot be linked
    else:
        os.unlink(aside)


def _unlink(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
