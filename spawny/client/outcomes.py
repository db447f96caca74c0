"""What is said of calls that gave no result in time."""

from __future__ import annotations

from ..errors import CallCancelled, CallTimeout
from ..kernel import wire
from .channel import Overdue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .proxy import Reference
    from .scope import Scope


def as_told(request: tuple[Any, ...], reference: Reference | None) -> tuple[Any, ...]:
    """The request as messages tell it, and whether it is lasting: by name, if there is one."""
    named = reference is not None and reference.name
    return (named, *request[1:]) if named else request


def operation_name(kind: int | None, request: tuple[Any, ...]) -> str:
    """A few words for what was asked for, as they stand in messages."""
    if kind == wire.METHOD or (kind == wire.AWAIT and request[1] is not None):
        return f"call {request[1]}()"
    if kind in (wire.CALL, wire.AWAIT):
        is_named = bool(request) and type(request[0]) is bytes
        return f"call {request[0].decode('utf-8', 'replace')}()" if is_named else "a call"
    if kind in (wire.GETATTR, wire.SETATTR, wire.DELATTR, wire.OPERATE):
        return f"access to {request[1]}"
    if kind == wire.PROGRAM:
        return "a program"
    return "a request"


def cancelled(name: str, kind: int, request: tuple[Any, ...]) -> CallCancelled:
    """The error for a request to this daemon whose scope was cancelled."""
    return CallCancelled(f"{operation_name(kind, request)} in daemon {name!r} was cancelled")


def overdue(
    name: str, scope: Scope, kind: int, request: tuple[Any, ...], how: str
) -> CallCancelled | CallTimeout:
    """The error for a request to this daemon whose scope was over; `how` it stands with that."""
    if scope.ends_by_cancel():
        return cancelled(name, kind, request)
    what = f"{operation_name(kind, request)} in daemon {name!r}"
    if how == Overdue.NOT_SENT:
        return CallTimeout(f"{what} was not begun: the time was over")
    if how == Overdue.WITHDRAWN:
        return CallTimeout(
            f"{what} was not begun in time, and will not be: the daemon is busy, see spawny ps"
        )
    if how == Overdue.RUNS_ON:
        return CallTimeout(
            f"{what} took too long and does not heed its interrupt: it is in code that cannot"
            " be interrupted, or catches KeyboardInterrupt. Calls wait until it ends; to end"
            f" the daemon: spawny stop {name}"
        )
    return CallTimeout(f"{what} took too long and was interrupted")
