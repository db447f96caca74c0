"""Whether a file is still what it was: by its stamp at once, by its content where that differs."""

import os
import zlib

# Of larger files (of extension modules, as a rule) the time and the size have to do.
CONTENT_LIMIT_BYTES = 4 * 1024 * 1024


def stamp_of(file):
    """What changes when a file is written; None where there is none."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def crc_of(file):
    """Tells one content from another; None where it is too long, or cannot be read."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(CONTENT_LIMIT_BYTES + 1)
    except (OSError, ValueError):
        return None
    return zlib.crc32(content) if len(content) <= CONTENT_LIMIT_BYTES else None
