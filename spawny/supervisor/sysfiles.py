"""The small files in which Linux tells of itself, under /proc and /sys.

They are read at every start and end of a daemon, /proc as a whole at an end. So they are read with
the three system calls that it takes; `open` makes seven of them.
"""

from __future__ import annotations

import os

_READ_BYTES = 16 * 1024

# Most of these files are given a page at a time: only less than that is all for sure.
_PAGE_BYTES = 4096


def contents(path: str) -> bytes:
    """What is in it now; raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _READ_BYTES)
        if len(data) < _PAGE_BYTES:
            return data
        pieces = [data]
        while piece := os.read(fd, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)
