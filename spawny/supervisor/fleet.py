"""All that the core knows, and the few verbs its parts share.

One rule: a part of the core changes the fleet only through here, and speaks to the world only by
`do`. Nothing here waits or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import control
from ..settings import Settings
from . import actions
from .events import Declared, Deferrable, Requested, StartRequested
from .lifecycle import ALIVE, SUPERVISED, State
from .policy import describe_exit
from .records import Kind, Record, Unfit, Zygote
from .values import Caller

# How many ended daemons are remembered by name, so that a late question finds a reason.
ENDED_KEPT = 50

# Of requests that must not be carried out twice. A client asks again at once: these are far more
# than are answered in the second of an upgrade.
ANSWERS_KEPT = 256


@dataclass(slots=True)
class PendingListing:
    """A listing that waits for the pongs of `awaited`, which become fewer, until `deadline`."""

    caller: Caller
    name: str | None
    awaited: set[str]
    deadline: float
    is_explained: bool = False  # the answer is an explanation


@dataclass(frozen=True, slots=True)
class PendingInterrupt:
    caller: Caller
    name: str
    deadline: float
    is_sent: bool = True  # else it waits for the link of a daemon that is being adopted


@dataclass(frozen=True, slots=True)
class Upgrading:
    """An upgrade under way: its trial, then (`is_draining`) the wait for what must not be lost."""

    caller: Caller
    python: str
    python_path: str
    deadline: float
    version: str = ""
    is_draining: bool = False
    soft_until: float = 0.0
    is_handed_over: bool = False


class Fleet:
    """The daemons of one supervisor, and who waits for what."""

    def __init__(
        self,
        settings: Settings,
        welcome: control.Welcome,
        logs: Callable[[str], str],
        jitter: Callable[[], float],
        now: float,
    ) -> None:
        self.settings = settings
        self.welcome = welcome
        self.log_of = logs
        self.jitter = jitter
        self.records: dict[str, Record] = {}
        self.changed: set[str] = set()  # the names whose deadlines are to be looked at again
        self.declared: dict[str, Declared] = {}  # by the configuration
        self.ended: dict[str, Record] = {}  # the last of each name, oldest first
        self.watchers: dict[bytes, Caller] = {}
        self.listings: list[PendingListing] = []
        self.interrupts: dict[int, PendingInterrupt] = {}
        self.dumps: dict[int, PendingInterrupt] = {}  # numbered as interrupts are
        self.interrupt_id = 0
        self.recycle_id = 0
        self.largest_rss: dict[str, int] = {}  # by the digest of a definition
        self.zygotes: dict[int, Zygote] = {}
        self.zygote_number = 0
        self.unfit: dict[Kind, Unfit] = {}
        self.plain_starts: dict[Kind, float] = {}  # when the last of a kind was
        self.shutting_down = False
        self.shutdown_callers: list[Caller] = []
        self.is_exiting = False
        self.journal_problem: str | None = None  # it was told, and is to be tried again
        self.log_sizes: dict[str, int] = {}  # as they were left by the last look
        self.logs_seen_at = now
        self.logs_due: float | None = None  # before the next regular look
        self.files_problem: str | None = None  # it was told
        self.touched_at = now  # when somebody last needed this supervisor
        self.sampled_at = now
        self.checked_at = now
        self.again: list[Deferrable] = []  # deferred requests that are due
        # Requests that must not be carried out twice: who waits for which, and what they were
        # answered, by their tokens. `knows_earlier`: also of those before the last upgrade.
        self.awaited: dict[Caller, str] = {}
        self.answered: dict[str, control.Message] = {}
        self.knows_earlier = False
        self.upgrading: Upgrading | None = None
        self.held: list[StartRequested | Requested] = []  # during an upgrade
        self._by_link: dict[int, str] = {}
        self._actions: list[actions.Action] = []

    # --- speaking -------------------------------------------------------------------------------

    def do(self, action: actions.Action) -> None:
        if isinstance(action, actions.Reply) and not isinstance(action.message, control.Progress):
            self._note_answer(action.caller, action.message)
        self._actions.append(action)

    def _note_answer(self, caller: Caller, message: control.Message) -> None:
        if token := self.awaited.pop(caller, ""):
            self.answered[token] = message
            if len(self.answered) > ANSWERS_KEPT:
                del self.answered[next(iter(self.answered))]

    def take_actions(self) -> list[actions.Action]:
        taken, self._actions = self._actions, []
        return taken

    def reply(self, caller: Caller, message: control.Message) -> None:
        self.do(actions.Reply(caller, message))

    def refuse(self, caller: Caller, error: str, message: str) -> None:
        self.reply(caller, control.Refused(error, message))

    def publish(self, kind: str, record: Record, detail: str = "") -> None:
        pid = record.identity.pid if record.identity else None
        watchers = tuple(self.watchers.values())
        self.do(actions.Publish(watchers, kind, record.name, detail, pid))

    def announce(self, kind: str, detail: str, name: str = "") -> None:
        """Publish what concerns the supervisor itself."""
        watchers = tuple(self.watchers.values())
        self.do(actions.Publish(watchers, kind, name, detail, self.welcome.pid))

    # --- knowing --------------------------------------------------------------------------------

    def put(self, record: Record) -> Record:
        """Remember `record` in place of the one of its name."""
        self.changed.add(record.name)
        before = self.records.get(record.name)
        if before is not None and before.link is not None and before.link != record.link:
            self._by_link.pop(before.link, None)
        if record.link is not None:
            self._by_link[record.link] = record.name
        if record.state is State.ENDED:
            self.records.pop(record.name, None)
            self.ended.pop(record.name, None)
            self.ended[record.name] = record
            if len(self.ended) > ENDED_KEPT:
                oldest = next(iter(self.ended))
                del self.ended[oldest]
                self.do(actions.DropJournal(oldest))
        else:
            self.ended.pop(record.name, None)
            self.records[record.name] = record
        return record

    def find(self, name: str) -> Record | None:
        """The record of this name, ended ones included."""
        return self.records.get(name) or self.ended.get(name)

    def linked(self, link: int) -> Record | None:
        """The daemon at the other end of this link."""
        name = self._by_link.get(link)
        return None if name is None else self.records.get(name)

    def alive(self) -> Iterator[Record]:
        """Those with a process, as a copy: the caller may change the fleet."""
        return iter([each for each in self.records.values() if each.state in ALIVE])

    def supervised(self) -> Iterator[Record]:
        """Those that make a supervisor necessary."""
        return iter([each for each in self.records.values() if each.state in SUPERVISED])

    def has_supervised(self) -> bool:
        """Whether any does."""
        return any(each.state in SUPERVISED for each in self.records.values())

    def refuse_unknown(self, caller: Caller, name: str) -> None:
        """Say that nothing of this name runs, and what does."""
        known = self.find(name)
        if known is not None:
            why = known.life.reason or describe_exit(known.life.exit_code, known.life.signal_name)
            message = (
                f"daemon {name!r} does not run: {why}; its output is in {self.log_of(name)}, and"
                f" spawny restart {name} starts it again"
            )
        else:
            running = ", ".join(sorted(each.name for each in self.supervised()))
            message = f"no daemon {name!r}; " + (
                f"these run: {running}" if running else "none runs at all"
            )
        self.refuse(caller, "DaemonNotFound", message)
