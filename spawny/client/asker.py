"""Who asks for an end: what others read later when they wonder why a daemon has gone."""

from __future__ import annotations

import os
import sys

# A command line may be long; what it is shows in its beginning.
_LIMIT = 120


def asker() -> str:
    """This process, in words."""
    words = " ".join([os.path.basename(sys.executable or "python"), *sys.argv])
    command = words if len(words) <= _LIMIT else words[:_LIMIT] + "…"
    return f"pid {os.getpid()} ({command})"
