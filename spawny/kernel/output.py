"""What user code prints: to the log, and to the clients that want it.

File descriptors 1 and 2 are the daemon's log, so output of C code is there too; what goes through
`sys.stdout` and `sys.stderr` is also forwarded to clients, by the server.
"""

import io
import os
import sys

# A forwarded piece is cut here, so that one huge print does not become one huge frame.
PIECE_BYTES = 64 * 1024


class _Log(io.RawIOBase):
    """The log's descriptor as a raw stream that passes on what it writes."""

    def __init__(self, fd, server):
        self._fd = fd
        self.server = server

    def writable(self):
        return True

    def fileno(self):
        return self._fd

    def write(self, data):
        # An interrupt between a write and the count of what it wrote would print a line twice, or
        # cut a frame short: it waits until Stream has done.
        with self.server.calls.interrupts_held():
            data = bytes(data)
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except OSError:
                    break  # a full disk must not break the user's print
            for piece in _pieces(data):
                self.server.forward(self._fd, piece)
            return len(data)


def _pieces(data):
    """`data` in pieces of bounded size, none of which cuts a UTF-8 character in two."""
    start = 0
    while len(data) - start > PIECE_BYTES:
        end = start + PIECE_BYTES
        while end > start + PIECE_BYTES - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end]
        start = end
    yield data[start:]


class Stream(io.TextIOWrapper):
    """A line-buffered text stream that says that it may hold back part of a line."""

    server = None

    def write(self, text):
        self.server.has_output = True
        count = super().write(text)
        self.server.calls.check_interrupt()
        return count

    def flush(self):
        super().flush()
        self.server.calls.check_interrupt()


def install(server):
    """Replace `sys.stdout` and `sys.stderr`; gives the two new streams."""
    streams = []
    for fd in (1, 2):
        # No BufferedWriter between: it would cut long texts anywhere, and the text layer has a
        # buffer of its own.
        log = _Log(fd, server)
        stream = Stream(log, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        stream.server = server
        streams.append(stream)
    sys.stdout = sys.__stdout__ = streams[0]
    sys.stderr = sys.__stderr__ = streams[1]
    return streams


def take_over(streams, server):
    """Have streams that were installed for somebody else print for this server."""
    for stream in streams:
        stream.server = stream.buffer.server = server
    server.has_output = True
    return streams
