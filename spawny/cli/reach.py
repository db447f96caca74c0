"""Reaching the supervisor without starting one just to hear that nothing runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..client.autostart import supervisor_listens
from ..errors import DaemonNotFound
from ..paths import check_name, locate

if TYPE_CHECKING:
    from ..client.supervisor import Supervisor


def is_running() -> bool:
    """Whether a supervisor runs."""
    return supervisor_listens(locate())


def supervisor_if_needed() -> Supervisor | None:
    """The supervisor; None where none runs, and none that ran before left a daemon behind."""
    if not is_running() and not any(locate().journal.glob("*.json")):
        return None
    return supervisor()


def supervisor_of(name: str) -> Supervisor:
    """The supervisor that may know this daemon; raises `DaemonNotFound` where none can."""
    check_name(name)
    found = supervisor_if_needed()
    if found is None:
        raise DaemonNotFound(f"there is no daemon {name!r}: none runs at all")
    return found


def supervisor() -> Supervisor:
    """The supervisor, started if need be."""
    from ..client.supervisor import connect  # with it comes zmq

    return connect()


def supervisor_python() -> str:
    """The interpreter of the supervisor; where none runs, that of the one to come: ours."""
    return supervisor().version().python if is_running() else sys.executable
