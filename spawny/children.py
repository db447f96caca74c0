"""The processes that are started here, and that somebody here waits for.

The one rule: who starts a process is the one who waits for it. The supervisor also waits for
children that nobody here has started (orphans, as process 1 of a container), and must know which.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from typing import Any

_lock = threading.Lock()
_started: list[subprocess.Popen[bytes]] = []


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """As `subprocess.Popen`; raises what that raises."""
    with _lock:  # from its birth on it is known
        child = subprocess.Popen(command, **options)
        _started[:] = [each for each in _started if each.returncode is None]
        _started.append(child)
    return child


def is_awaited(pid: int) -> bool:
    """Whether this child, which has ended, is one of those, and not waited for yet."""
    with _lock:
        return any(each.pid == pid and each.returncode is None for each in _started)
