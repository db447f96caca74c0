"""What happened: past facts that the edges tell the core.

Everything here is validated: an edge that cannot make one of these from what it got logs that, and
the core never hears of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .. import control
from ..settings import Settings
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

if TYPE_CHECKING:
    from .records import Record


class Event:
    """The base of the closed family below."""


# --- from clients -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartRequested(Event):
    """A client wants a daemon; its interpreter is looked up already.

    Where that is None the request cannot be met: `error` is the name of a class in `errors`.
    """

    caller: Caller
    request: control.StartDaemon
    interpreter: Interpreter | None
    problem: str = ""
    error: str = "InterpreterNotFound"


@dataclass(frozen=True, slots=True)
class Requested(Event):
    """A client wants anything else."""

    caller: Caller
    request: control.Message


@dataclass(frozen=True, slots=True)
class ClientGone(Event):
    """Nothing more can be sent to this client."""

    client: bytes


@dataclass(frozen=True, slots=True)
class Declared:
    """A daemon of the configuration: what a client's request for it would be.

    `interpreter` is None where it was not found, for the reason `problem`; `keys` is its table.
    """

    request: control.StartDaemon
    interpreter: Interpreter | None
    problem: str
    autostart: bool
    keys: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Configured(Event):
    """The daemons that are declared at the start; `is_first`: not that of a successor."""

    declared: Mapping[str, Declared]
    is_first: bool


@dataclass(frozen=True, slots=True)
class ReloadRequested(Event):
    """The configuration was read again, for a client or (None) on a signal; a `problem`: it
    could not be."""

    caller: Caller | None
    dry_run: bool
    settings: Settings
    declared: Mapping[str, Declared]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredDue(Event):
    """A declared daemon is to start, now that the one before has ended."""

    name: str


# What may have to wait for the end of a process.
Deferrable = StartRequested | Requested | DeclaredDue


# --- from daemons, over their links -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DaemonHello(Event):
    """A daemon phoned home; None for an identity: its process is gone by now."""

    link: int
    name: str
    token: str
    identity: Identity | None
    interpreter: Interpreter
    version: str
    state: Literal["new", "loading", "ready", "failed"]
    clients: int
    calls: int


@dataclass(frozen=True, slots=True)
class DefinitionLoaded(Event):
    """The daemon serves calls."""

    link: int


@dataclass(frozen=True, slots=True)
class DefinitionFailed(Event):
    """The definition raised; the daemon ends by itself."""

    link: int
    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class ClientsChanged(Event):
    """So many sessions are open there."""

    link: int
    clients: int


@dataclass(frozen=True, slots=True)
class PongReceived(Event):
    """The answer to a ping."""

    link: int
    clients: int
    calls: int
    busy: Busy | None
    figures: CallFigures = NO_CALLS
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallInterrupted(Event):
    """The answer to an interrupt: `done` is false when nothing ran."""

    link: int
    interrupt_id: int
    done: bool


@dataclass(frozen=True, slots=True)
class StacksDumped(Event):
    """The answer to `SendStacks`."""

    link: int
    dump_id: int
    text: str


@dataclass(frozen=True, slots=True)
class EndingAnnounced(Event):
    """The daemon has decided to end; `recycled`: for its successor, `saved`: with its state, under
    this token."""

    link: int
    reason: str
    recycled: bool = False
    saved: bool = False
    token: str = ""


@dataclass(frozen=True, slots=True)
class RecycleRefused(Event):
    """The daemon goes on, since its state could not be saved."""

    link: int
    token: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class SavingBegan(Event):
    """The daemon has nothing else to do than to save its state and end."""

    link: int


@dataclass(frozen=True, slots=True)
class LimitReached(Event):
    """The daemon has answered so many requests as it was to tell."""

    link: int
    calls: int


@dataclass(frozen=True, slots=True)
class CallRunsLong(Event):
    """A call, told by its connection and number there, has run for half of what it may take."""

    link: int
    connection: int
    call: int
    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkLost(Event):
    """The connection is closed; the process may live on."""

    link: int


# --- from the operating system ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildSpawned(Event):
    """The process exists. Its output begins at `log_offset` bytes of its log. `zygote` is the
    number of the one that it was forked from; 0: it was executed."""

    name: str
    identity: Identity
    log_offset: int
    mark: str
    zygote: int = 0


@dataclass(frozen=True, slots=True)
class ZygoteReady(Event):
    """It has imported everything, in so many seconds."""

    number: int
    pid: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ZygoteGone(Event):
    """Its process has ended, or could not be started; `is_unfit`: so would the next one."""

    number: int
    reason: str
    is_unfit: bool = False


@dataclass(frozen=True, slots=True)
class ForkRefused(Event):
    """There is no process; it is to be started in another way. `is_stale`: the zygote has imported
    what is another on disk by now."""

    name: str
    number: int
    reason: str
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class MemoryMeasured(Event):
    """So much is free for the daemon that is to be started; None: nobody knows."""

    name: str
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class SpawnFailed(Event):
    """There is no process; `problem` is a sentence for the user."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class ProcessExited(Event):
    """The process is gone. Both None: it was no child of ours, so that nobody told us how.

    `is_out_of_memory`: the system killed processes for want of memory, most likely this one.
    """

    name: str
    identity: Identity
    exit_code: int | None
    signal_name: str | None
    is_out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class SessionSwept(Event):
    """So many processes that a dead daemon left still run; 0 comes once, and last."""

    name: str
    identity: Identity
    left: int


@dataclass(frozen=True, slots=True)
class HealthSampled(Event):
    """One look at every process that `SampleHealth` named and that still exists."""

    samples: Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class ProcessesSeen(Event):
    """What each process does that `GlanceAtProcesses` named and that still exists."""

    states: Mapping[str, ProcessState]


@dataclass(frozen=True, slots=True)
class DeadlineReached(Event):
    """`next_deadline()` has passed."""


@dataclass(frozen=True, slots=True)
class ShutdownSignalled(Event):
    """Ctrl-C in the foreground: end everything."""


@dataclass(frozen=True, slots=True)
class SuccessorChecked(Event):
    """A trial of the next version is over; an empty `problem`: it can take over."""

    version: str
    problem: str


@dataclass(frozen=True, slots=True)
class SuccessionFailed(Event):
    """The next version could not be executed after all."""

    problem: str


# --- from the version before, once at the start of a successor ------------------------------------


@dataclass(frozen=True, slots=True)
class HandedOver(Event):
    """What the supervisor knew before it was upgraded, times included: its clock goes on."""

    records: tuple[Record, ...]
    answered: Mapping[str, control.Message]


@dataclass(frozen=True, slots=True)
class LogsSeen(Event):
    """How many bytes the logs had, those over the limit before they were cut."""

    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FilesLookedAt(Event):
    """Something that the supervisor had made was gone.

    `mended` is made anew; where that failed, for the reason `problem`, it is tried again.
    `is_superseded`: another supervisor has the lock, and all else is its.
    """

    mended: tuple[str, ...]
    is_superseded: bool
    problem: str | None = None
    has_lost_journal: bool = False


# --- from the journal ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JournalTried(Event):
    """Something was written, or could not be: `problem` says why, and it will be tried again."""

    name: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class DefinitionLost(Event):
    """A daemon's definition cannot be read any more."""

    link: int
    problem: str


# --- from the journal, once at the start --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JournalRead(Event):
    """A daemon that an earlier supervisor left.

    `identity` is its process where that still lives, `age_seconds` since when; else None, `left` is
    what it was, which may have left others behind, and `crashed` says that it went without cleaning
    up.
    """

    request: control.StartDaemon
    interpreter: Interpreter
    state: Literal["running", "waiting", "failed", "ended"]
    restarts: int
    reason: str
    identity: Identity | None
    age_seconds: float
    crashed: bool
    left: Identity | None = None
    endings: tuple[Ending, ...] = ()
    restore: str = ""
