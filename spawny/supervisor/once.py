"""Requests that must not be carried out twice, though a client asks again when its connection ends.

One rule: a token is carried out once. Its answer is remembered for a while and handed over in an
upgrade; a supervisor that cannot know whether a request was carried out refuses it.
"""

from __future__ import annotations

from .. import control
from .events import Requested
from .fleet import Fleet
from .values import Caller

Once = control.StopDaemon | control.RestartDaemon | control.InterruptDaemon | control.Shutdown


def admit(fleet: Fleet, caller: Caller, request: Once) -> bool:
    """Whether to carry out this request; where not, it is answered."""
    if caller in fleet.awaited:
        return True  # it was deferred, and is taken up again
    if request.again and not _is_new(fleet, caller, request.token):
        return False
    fleet.awaited[caller] = request.token
    return True


def is_held(fleet: Fleet, event: object) -> bool:
    """Whether this begins something that is not to be begun now."""
    return (
        isinstance(event, Requested)
        and isinstance(event.request, Once)
        and event.caller not in fleet.awaited
    )


def _is_new(fleet: Fleet, caller: Caller, token: str) -> bool:
    answer = fleet.answered.get(token)
    if answer is not None:
        fleet.reply(caller, answer)
    elif token in fleet.awaited.values() or not fleet.knows_earlier:
        fleet.refuse(
            caller,
            "SupervisorUnavailable",
            "the supervisor that was asked first ended before it answered: look at spawny ps, then"
            " ask again",
        )
    else:
        return True
    return False
