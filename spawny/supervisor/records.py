"""What the supervisor knows of one daemon: a frozen record, replaced when something is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any, TypeVar

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

Changing = TypeVar("Changing", bound="Life | Record")


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
    RECYCLED = "recycled"  # it has made room for its successor
    DECIDED = "decided"  # by a client, or by the daemon as it was told to


@dataclass(frozen=True, slots=True)
class Waiter:
    """A client that waits for a daemon to come up, and whether it was there before it asked.

    Whoever starts or finds one attaches to it, and is told there how its definition goes. Who
    restarts one does not, and so waits `until_ready`.
    """

    caller: Caller
    existing: bool
    until_ready: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What daemons have in common that one zygote can fork."""

    interpreter: Interpreter
    caller_python: str  # whose environment is cleaned for it
    kernel: str
    preload: tuple[str, ...]
    sys_path: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    cwd: str


@dataclass(frozen=True, slots=True)
class Zygote:
    """One that runs; times are those of the core's `now`."""

    number: int
    kind: Kind
    began_at: float
    used_at: float
    ready_at: float | None = None
    pid: int | None = None
    forks: int = 0

    def changed(self, **changes: Any) -> Zygote:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why daemons of a kind are not forked, and until when that is not tried again."""

    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class LongCall:
    """A call that nears or has passed its deadline; `due` is the time of the next step."""

    connection: int
    call: int
    what: str
    due: float
    is_asked: bool = False  # it was interrupted
    stage: Stage = Stage.ASKED  # SIGTERM: it is to be seen whether that has helped

    def changed(self, **changes: Any) -> LongCall:
        return replace(self, **changes)


def _changed(record: Changing, changes: dict[str, Any]) -> Changing:
    """As `dataclasses.replace`, in a tenth of its time: each event changes these several times."""
    copy = object.__new__(type(record))
    fields = copy.__dict__
    fields.update(record.__dict__)
    assert changes.keys() <= fields.keys(), changes
    fields.update(changes)
    return copy


@dataclass(frozen=True)
class Life:
    """What is true of one process of a daemon and starts afresh with the next.

    Times are those of the core's `now`.
    """

    began_at: float
    is_automatic: bool = False  # started by the restart policy, so that nobody waits to be told
    log_offset: int = 0
    zygote: int = 0  # the number of the one that it is forked from
    ready_at: float | None = None
    clients: int = 0
    calls: int = 0
    figures: CallFigures = NO_CALLS
    drift: tuple[str, ...] = ()
    busy: Busy | None = None
    pong_at: float | None = None
    pinged_at: float | None = None  # when the ping was sent that is still unanswered
    is_quiet: bool = False  # its last pong holds: no client is there, none has come or gone since
    sample: Sample | None = None
    process_state: ProcessState = "other"
    uninterruptible_since: float | None = None  # seen so at every look from then on
    # Limits.
    sampled_at: float = 0.0  # when it was looked at for its own sake
    long_call: LongCall | None = None
    recycle: str = ""  # the token of the order to make room for its successor
    recycle_reason: str = ""
    is_saving: bool = False  # it does what that order says, and has not told the outcome
    recycle_after: float = 0.0  # no such order before that
    kept: str = ""  # why the last order was not obeyed
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


@dataclass(frozen=True)
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
    restart_reason: str = ""  # of the last one that nobody asked for
    restore: str = ""  # the token of what the process before has saved
    # A restart has begun, and is gone on with by the next supervisor if it comes to that.
    comes_back: bool = False
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
    def pid(self) -> int | None:
        return self.identity.pid if self.identity else None

    @property
    def is_being_adopted(self) -> bool:
        """It has lost its supervisor and is expected to phone home to this one."""
        return self.state is State.UNLINKED and self.deadline is not None

    def moved(self, happened: Input, **changes: Any) -> Record:
        """This record after `happened`, with further changes."""
        return _changed(self, {"state": advance(self.state, happened), **changes})

    def changed(self, **changes: Any) -> Record:
        return _changed(self, changes)

    def lived(self, **changes: Any) -> Record:
        """This record with changes to its life."""
        return _changed(self, {"life": _changed(self.life, changes)})
