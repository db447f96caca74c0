"""What the supervisor knows of one daemon: a frozen record, replaced when something is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any

from .. import control
from . import events
from .lifecycle import Input, State, advance
from .values import (
    NO_CALLS,
    Busy,
    Caller,
    CallFigures,
    Ending,
    Identity,
    Interpreter,
    ProcessState,
    Sample,
)


class Stage(IntEnum):
    """How far the ending of a daemon, or the sweeping of its session, has escalated."""

    ASKED = 0
    SIGTERM = 1
    SIGKILL = 2
    SIGKILL_AGAIN = 3


class Cause(Enum):
    """Whose doing an ending is; the restart policy asks."""

    UNSAID = "unsaid"  # it just went: the exit status has to tell
    FAILURE = "failure"  # its definition raised, or it was not ready in time
    DECIDED = "decided"  # by a client, or by the daemon as it was told to


@dataclass(frozen=True, slots=True)
class Waiter:
    """A client that waits for a daemon to come up, and whether it was there before it asked."""

    caller: Caller
    existing: bool


@dataclass(frozen=True, slots=True)
class Life:
    """What is true of one process of a daemon and starts afresh with the next.

    Times are those of the core's `now`.
    """

    began_at: float
    is_automatic: bool = False  # started by the restart policy, so that nobody waits to be told
    log_offset: int = 0
    ready_at: float | None = None
    clients: int = 0
    calls: int = 0
    figures: CallFigures = NO_CALLS
    busy: Busy | None = None
    pong_at: float | None = None
    pinged_at: float | None = None  # when the ping was sent that is still unanswered
    is_quiet: bool = False  # its last pong holds: no client is there, none has come or gone since
    sample: Sample | None = None
    process_state: ProcessState = "other"
    uninterruptible_since: float | None = None  # seen so at every look from then on
    # Ending.
    stage: Stage = Stage.ASKED
    stop_at: float | None = None  # when the ending began
    is_swept_hard: bool = False  # what it left has had its SIGKILL
    cause: Cause = Cause.UNSAID
    reason: str = ""
    exit_code: int | None = None
    signal_name: str | None = None
    is_out_of_memory: bool = False
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One daemon. `deadline` is when its state gives up waiting for what it awaits."""

    request: control.StartDaemon
    interpreter: Interpreter
    state: State
    life: Life
    identity: Identity | None = None
    link: int | None = None
    version: str = ""
    deadline: float | None = None
    restarts: int = 0
    failures: int = 0  # deaths in a row; sets the backoff
    deaths: tuple[float, ...] = ()
    endings: tuple[Ending, ...] = ()  # of its last processes, the latest first
    waiters: tuple[Waiter, ...] = ()
    stoppers: tuple[Caller, ...] = ()
    # Requests that only make sense once this process is gone; taken up again then.
    deferred: tuple[events.Deferrable, ...] = ()

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def is_being_adopted(self) -> bool:
        """It has lost its supervisor and is expected to phone home to this one."""
        return self.state is State.UNLINKED and self.deadline is not None

    def moved(self, happened: Input, **changes: Any) -> Record:
        """This record after `happened`, with further changes."""
        return replace(self, state=advance(self.state, happened), **changes)

    def changed(self, **changes: Any) -> Record:
        return replace(self, **changes)

    def lived(self, **changes: Any) -> Record:
        """This record with changes to its life."""
        return replace(self, life=replace(self.life, **changes))
