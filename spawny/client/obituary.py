"""Why a daemon is gone, in words: what the supervisor saw, and the end of its log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import DaemonDied, DaemonStartError, SpawnyError
from ..paths import locate
from .ending import wait_gone

if TYPE_CHECKING:
    from ..control import DaemonStatus
    from .references import Run
    from .session import Session

# Enough for a traceback, short enough for an error message.
TAIL_BYTES = 2000

# A connection that closes while its process lives on is rare; ours are closed by the exit.
EXIT_SECONDS = 0.5

# An error must not wait for a supervisor that is stopped, only to say a little more.
PATIENCE_SECONDS = 1.0

_HALTED = ("stopped", "zombie", "uninterruptible", "unresponsive")
_LIVING = ("starting", "loading", "ready", "busy", "unlinked", *_HALTED)


def daemon_died(
    session: Session, operation: str, more: str = "", run: Run | None = None
) -> DaemonDied:
    """The error to raise when a daemon's connection closed during `operation`, in this `run`."""
    pid = session.started.get("pid", 0) if run is None else run[1]
    with wait_gone(pid) as wait:
        # The supervisor sees the same end at the same moment; asked before, it would know nothing.
        wait(EXIT_SECONDS)
    status = _last_status(session.name)
    how, exit_code, signal_name = _how(status, pid)
    output = log_tail(session.name)
    return DaemonDied(
        f"daemon {session.name!r} (pid {pid or '?'}) {how} during"
        f" {operation}{more};"
        f" its last output is in: spawny logs {session.name}",
        exit_code=exit_code,
        signal_name=signal_name,
        output=output,
    )


def start_failed(name: str, detail: str, pid: int = 0) -> DaemonStartError:
    """The error to raise when a daemon went away before its definition was ready."""
    with wait_gone(pid) as wait:
        wait(EXIT_SECONDS)
    status = _last_status(name)
    reason = status.reason if status is not None and status.reason else detail
    return DaemonStartError(f"daemon {name!r} did not start: {reason}", output=log_tail(name))


def _how(status: DaemonStatus | None, pid: int) -> tuple[str, int | None, str | None]:
    if status is not None and status.pid not in (None, pid):
        return "has ended and was started anew", None, None
    is_same = status is not None and status.pid in (None, pid)
    if status is None or (is_same and status.state in _LIVING):
        return "has closed the connection", None, None
    if status.signal_name is not None:
        is_known = status.reason.startswith(("killed", "stop", "restart"))
        why = f" ({status.reason})" if status.reason and not is_known else ""
        return f"was killed by {status.signal_name}{why}", None, status.signal_name
    if status.exit_code is not None:
        return f"exited with code {status.exit_code}", status.exit_code, None
    reason = status.reason or status.state
    has_verb = reason.startswith("ended ")
    return f"has {reason}" if has_verb else f"has ended ({reason})", None, None


def _last_status(name: str) -> DaemonStatus | None:
    try:
        from .supervisor import connect

        return connect(start=False, answer_seconds=PATIENCE_SECONDS).status(name)
    except (SpawnyError, OSError):
        return None  # without a supervisor nobody knows more


def log_tail(name: str) -> str:
    """The end of a daemon's log; empty where there is none."""
    try:
        with open(locate().log_file(name), "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
