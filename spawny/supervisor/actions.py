"""What to do: imperatives that the core hands to the edges, to be performed in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .. import control
from ..settings import Settings
from .records import Record
from .values import Caller, Identity, Interpreter


class Action:
    """The base of the closed family below."""


# --- to clients ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply(Action):
    """Send a message to whoever asked.

    With `tail_of` the message has an `output`, which the edge fills with the end of that daemon's
    log, from `tail_offset` on, and before `tail_until`.
    """

    caller: Caller
    message: control.Message
    tail_of: str | None = None
    tail_offset: int = 0
    tail_until: int | None = None


@dataclass(frozen=True, slots=True)
class Publish(Action):
    """Log this, and tell it to every watcher; the edge adds the time of day."""

    watchers: tuple[Caller, ...]
    kind: str
    name: str
    detail: str
    pid: int | None


# --- to daemons, over their links ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendLoad(Action):
    """Send the definition that was kept. Answered by `DefinitionLost` where it cannot be read."""

    link: int
    request: control.StartDaemon
    restore: str = ""


@dataclass(frozen=True, slots=True)
class PingDaemon(Action):
    link: int


@dataclass(frozen=True, slots=True)
class SendInterrupt(Action):
    link: int
    interrupt_id: int


@dataclass(frozen=True, slots=True)
class SendStacks(Action):
    """Ask for the stacks of its threads. Answered by `StacksDumped`, or not."""

    link: int
    dump_id: int


@dataclass(frozen=True, slots=True)
class SendStop(Action):
    link: int
    reason: str
    comes_back: bool = False


@dataclass(frozen=True, slots=True)
class SendRecycle(Action):
    """Have a daemon end between calls, its state saved under this token; urgent: within a call."""

    link: int
    reason: str
    token: str
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class InterruptCall(Action):
    """Interrupt this very call; its client is told `text`."""

    link: int
    connection: int
    call: int
    text: str


@dataclass(frozen=True, slots=True)
class CloseLink(Action):
    """Drop a connection; a `reason` is worth a line in the log."""

    link: int
    reason: str = ""


# --- to the operating system --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeasureMemory(Action):
    """See how much is free for this daemon. Answered by `MemoryMeasured`."""

    name: str


@dataclass(frozen=True, slots=True)
class SpawnChild(Action):
    """Answered by `ChildSpawned` or `SpawnFailed`."""

    request: control.StartDaemon
    interpreter: Interpreter


@dataclass(frozen=True, slots=True)
class StartZygote(Action):
    """Start one for daemons such as this. Answered by `ZygoteReady` or `ZygoteGone`."""

    number: int
    request: control.StartDaemon
    interpreter: Interpreter
    cwd: str


@dataclass(frozen=True, slots=True)
class ForkDaemon(Action):
    """Fork it from this zygote, once that is ready. Answered by `ChildSpawned` or `ForkRefused`."""

    number: int
    request: control.StartDaemon
    interpreter: Interpreter


@dataclass(frozen=True, slots=True)
class EndZygote(Action):
    """End it, when it has done what it was asked for."""

    number: int


@dataclass(frozen=True, slots=True)
class ListZygotes(Action):
    """Reply with these by their numbers, when their memory is looked up, and with kinds that
    cannot be forked."""

    caller: Caller
    zygotes: Mapping[int, control.ZygoteStatus]
    unfit: tuple[control.ZygoteStatus, ...]


@dataclass(frozen=True, slots=True)
class WatchProcess(Action):
    """Report the exit of a process that we did not spawn."""

    name: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class SnapshotDescendants(Action):
    """Remember what came out of it: after a signal it may no longer be found as such."""

    identity: Identity
    mark: str


@dataclass(frozen=True, slots=True)
class SignalDaemon(Action):
    """Signal its process group; SIGKILL also to everything that came out of it."""

    identity: Identity
    signal: Literal["SIGTERM", "SIGKILL"]
    mark: str


@dataclass(frozen=True, slots=True)
class SweepSession(Action):
    """Signal what a dead daemon left. Answered by `SessionSwept`."""

    name: str
    identity: Identity
    signal: Literal["SIGTERM", "SIGKILL"]
    mark: str


@dataclass(frozen=True, slots=True)
class CountKills(Action):
    """Note how many processes the system has killed for want of memory, while these live."""

    processes: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class SampleHealth(Action):
    """Look at these processes. Answered by `HealthSampled`."""

    processes: tuple[tuple[str, Identity], ...]


@dataclass(frozen=True, slots=True)
class DescribeThreads(Action):
    """Tell a client what the system knows of the threads of a daemon that does not answer."""

    caller: Caller
    identity: Identity
    problem: str


@dataclass(frozen=True, slots=True)
class GlanceAtProcesses(Action):
    """See what these processes do, which costs little. Answered by `ProcessesSeen`."""

    processes: tuple[tuple[str, Identity], ...]


# --- to the file system -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepDefinition(Action):
    """Keep the definition until it is sent, and for restarts. Answered by `JournalTried`."""

    request: control.StartDaemon


@dataclass(frozen=True, slots=True)
class WriteJournal(Action):
    """Answered by `JournalTried`."""

    record: Record


@dataclass(frozen=True, slots=True)
class RetryJournal(Action):
    """Write what could not be written before. Answered by `JournalTried`."""


@dataclass(frozen=True, slots=True)
class DropJournal(Action):
    name: str


@dataclass(frozen=True, slots=True)
class LookAtFiles(Action):
    """Make anew what has vanished of our own. Answered by `FilesLookedAt` where something had."""


@dataclass(frozen=True, slots=True)
class RemoveCallSocket(Action):
    """A daemon that was killed leaves its socket behind."""

    name: str


@dataclass(frozen=True, slots=True)
class RemoveLog(Action):
    """The log of a daemon that nobody can ask for by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class RotateLogs(Action):
    """Cut what has grown over the limit. Answered by `LogsSeen`."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UseSettings(Action):
    """The figures have changed."""

    settings: Settings


# --- to the supervisor itself -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckSuccessor(Action):
    """Try the next version. Answered by `SuccessorChecked`."""

    python: str
    python_path: str


@dataclass(frozen=True, slots=True)
class AbandonCheck(Action):
    """End the trial; no answer is awaited any more."""


@dataclass(frozen=True, slots=True)
class HandOver(Action):
    """Become the next version, once the answers so far have left. `SuccessionFailed` if not."""

    python: str
    python_path: str
    records: tuple[Record, ...]
    answered: Mapping[str, control.Message]


@dataclass(frozen=True, slots=True)
class Exit(Action):
    """End the supervisor; the reason is for its log."""

    reason: str
