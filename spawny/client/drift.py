"""What to do about a daemon that has drifted: say so, refuse it, or have it started anew, once.

Loaded only where one has. What has drifted is told by the daemon, see `kernel/drift.py`.
"""

from __future__ import annotations

import os
import sys
import tokenize
import warnings
from contextlib import suppress

from ..definitions import ScriptDefinition
from ..errors import DaemonDrifted, DriftWarning, StaleModuleWarning
from .channel import Channel
from .launch import reach
from .session import Session

# (kind, name, file, text), of the kinds that `kernel/drift.py` knows.
Drifted = list[tuple[str, str, str, str]]

# So much is told in a text.
SHOWN = 5


def warn(name: str, drift: Drifted) -> None:
    """Say at the line of the caller's that attaches: what runs there is not what is here."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("spawny."):
        level, frame = level + 1, frame.f_back
    texts, modules = [text for _, _, _, text in drift], _modules(drift)
    text = f"{_told(name, drift)}. {_remedy(name, drift)}"
    warning = StaleModuleWarning(text, texts, modules) if modules else DriftWarning(text, texts)
    warnings.warn(warning, stacklevel=level)


def refusal(name: str, drift: Drifted) -> DaemonDrifted:
    """The error of on_drift="error"."""
    texts = [text for _, _, _, text in drift]
    return DaemonDrifted(f"{_told(name, drift)}. {_remedy(name, drift)}", texts)


def renewed(session: Session, channel: Channel, drift: Drifted) -> Channel:
    """A connection to the daemon after its restart; this one keeps it from ending until then.

    Raises `DaemonDrifted` where its interpreter is gone: it could not come back, and serves on.
    """
    from .supervisor import connect

    try:
        if any(kind == "interpreter" and not os.path.exists(file) for kind, _, file, _ in drift):
            raise refusal(session.name, drift)
        with connect() as supervisor:
            supervisor.renew(session.name, session.pid, _edited(drift))
    finally:
        channel.close()
    return reach(session)


def _edited(drift: Drifted) -> ScriptDefinition | None:
    """The script as it is now, where its file was edited: the supervisor has the text before."""
    for kind, _, file, _ in drift:
        if kind == "script":
            # Where it cannot be read the daemon keeps its text, and drifts on.
            with suppress(OSError, SyntaxError, UnicodeDecodeError), tokenize.open(file) as opened:
                return ScriptDefinition(opened.read(), file)
    return None


def _modules(drift: Drifted) -> list[tuple[str, str]]:
    return [(name, file) for kind, name, file, _ in drift if kind == "module"]


def _told(name: str, drift: Drifted) -> str:
    shown = ", ".join(text for _, _, _, text in drift[:SHOWN])
    if len(drift) > SHOWN:
        shown += f" and {len(drift) - SHOWN} more"
    return f"daemon {name!r} has drifted; what has changed since it was loaded: {shown}"


def _remedy(name: str, drift: Drifted) -> str:
    for kind, _, file, _ in drift:
        if kind == "script":
            again = f"spawny run {file} --name {name} --if-exists replace"
            break
    else:
        again = f"spawny restart {name}"
    return f'To have it as it is now: {again}, or on_drift="restart"'
