"""The socket where clients knock, at a path that is known by the daemon's name alone."""

import os
import socket
import sys


class Listener:
    """Bound at this path, where nobody else is served; else the process exits."""

    def __init__(self, path):
        self._path = path
        self._sock = _listen(path)
        self._inode = os.stat(path).st_ino

    def fileno(self):
        """Its descriptor; -1 once it is closed."""
        return self._sock.fileno()

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
