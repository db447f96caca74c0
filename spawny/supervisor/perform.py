"""Doing what the core has decided: one action at a time, each by the edge whose matter it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from .. import control
from ..paths import Paths
from ..settings import Settings
from . import actions, events, links, logs, proctable, threads
from .health import Health
from .journal import Journal
from .links import Links
from .premises import Premises
from .processes import Processes
from .room import Room
from .sockets import ControlSocket, Outcome
from .succession import Succession
from .values import Caller
from .watch import Watch
from .zygotes import Zygotes

logger = logging.getLogger(__name__)


class Performer:
    """Has every edge at hand."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        clients: ControlSocket,
        daemons: Links,
        processes: Processes,
        zygotes: Zygotes,
        journal: Journal,
        premises: Premises,
        watch: Watch,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._clients = clients
        self._daemons = daemons
        self._processes = processes
        self._zygotes = zygotes
        self._journal = journal
        self._premises = premises
        self._health = Health()
        self._room = Room()
        self.succession = Succession(watch)
        self.handover: actions.HandOver | None = None
        self.exit_reason: str | None = None

    def perform(self, action: actions.Action) -> list[events.Event]:
        """Do it; what has come of it at once."""
        match action:
            case actions.Reply():
                return self._reply(action)
            case actions.Publish():
                return self._publish(action)
            case actions.SpawnChild(request, interpreter):
                self._zygotes.disown(request.name)
                return [self._processes.spawn(request, interpreter)]
            case actions.StartZygote(number, request, interpreter, cwd):
                return self._zygotes.start(number, request, interpreter, cwd)
            case actions.ForkDaemon(number, request, interpreter):
                self._zygotes.disown(request.name)
                return self._zygotes.fork(number, request, interpreter)
            case actions.EndZygote(number):
                return self._zygotes.end(number)
            case actions.ListZygotes(caller, zygotes, unfit):
                return self._list_zygotes(caller, zygotes, unfit)
            case actions.MeasureMemory(name):
                return [events.MemoryMeasured(name, self._room.free_bytes())]
            case actions.SweepSession(name, identity, signal, mark):
                return [self._processes.sweep(name, identity, signal, mark)]
            case actions.GlanceAtProcesses(processes):
                seen = {name: proctable.state(identity) for name, identity in processes}
                return [events.ProcessesSeen({k: v for k, v in seen.items() if v is not None})]
            case actions.SendLoad():
                return self._load(action.link, action.request, action.restore)
            case actions.KeepDefinition(request):
                return [events.JournalTried(request.name, self._journal.keep(request))]
            case actions.WriteJournal(record):
                return [events.JournalTried(record.name, self._journal.write(record))]
            case actions.RetryJournal():
                return [events.JournalTried("", self._journal.retry())]
            case actions.DescribeThreads(caller, identity, problem):
                return self._send(caller, control.Stacks(threads.describe(identity.pid), problem))
            case actions.RotateLogs(names):
                return [self._rotate(names)]
            case actions.LookAtFiles():
                return [*self._premises.look()]
            case actions.SampleHealth(processes):
                return [self._health.sample(processes)]
            case actions.CheckSuccessor(python, python_path):
                return [*self.succession.check(python, python_path)]
            case _:
                self._perform_silently(action)
                return []

    def _perform_silently(self, action: actions.Action) -> None:
        """Do what nothing comes of at once."""
        match action:
            case actions.PingDaemon(link):
                self._daemons.send(link, {"type": "ping", "id": 0})
            case actions.SendInterrupt(link, number):
                self._daemons.send(link, {"type": "interrupt", "id": number, "call": None})
            case actions.SendStacks(link, number):
                self._daemons.send(link, {"type": "stacks", "id": number})
            case actions.SendStop(link, reason, comes_back):
                header = {"type": "stop", "reason": reason, "comes_back": comes_back}
                self._daemons.send(link, header)
            case actions.SendRecycle(link, reason, token, is_urgent):
                header = {"type": "recycle", "reason": reason, "token": token, "urgent": is_urgent}
                self._daemons.send(link, header)
            case actions.InterruptCall(link, connection, call, text):
                header = {"type": "interrupt", "id": 0, "call": [connection, call], "reason": text}
                self._daemons.send(link, header)
            case actions.CloseLink(link, reason):
                if reason:
                    logger.warning("closed a link: %s", reason)
                self._daemons.close(link)
            case actions.CountKills(identities):
                self._processes.memory.look(identities)
            case actions.WatchProcess(name, identity):
                self._processes.watch(name, identity)
            case actions.SnapshotDescendants(identity, mark):
                self._processes.snapshot(identity, mark)
            case actions.SignalDaemon(identity, signal, mark):
                self._processes.signal(identity, signal, mark)
            case actions.DropJournal(name):
                self._journal.drop(name)
            case actions.RemoveCallSocket(name):
                self._paths.call_socket(name).unlink(missing_ok=True)
            case actions.RemoveLog(name):
                logs.remove(self._paths.log_file(name))
            case actions.UseSettings(settings):
                self._settings = settings
            case actions.AbandonCheck():
                self.succession.abandon()
            case actions.HandOver():
                self.handover = action  # at the end of this turn
            case actions.Exit(reason):
                self.exit_reason = reason
            case _:
                raise TypeError(f"nobody performs {action!r}")

    def _load(self, link: int, request: control.StartDaemon, restore: str) -> list[events.Event]:
        try:
            definition = self._journal.definition(request)
        except OSError as error:
            return [events.DefinitionLost(link, str(error))]
        self._daemons.send(link, links.load(request, restore), definition)
        return []

    def _reply(self, action: actions.Reply) -> list[events.Event]:
        message = action.message
        if action.tail_of is not None:
            assert isinstance(message, control.Refused | control.Explanation)
            path = self._paths.log_file(action.tail_of)
            output = logs.tail(path, action.tail_offset, until=action.tail_until)
            message = replace(message, output=output)
        return self._send(action.caller, message)

    def _publish(self, action: actions.Publish) -> list[events.Event]:
        pid = f" (pid {action.pid})" if action.pid else ""
        detail = f": {action.detail}" if action.detail else ""
        whose = f"daemon {action.name!r}" if action.name else "the supervisor"
        logger.info("%s%s %s%s", whose, pid, action.kind, detail)
        message = control.Event(action.kind, action.name, time.time(), action.detail, action.pid)
        return [event for watcher in action.watchers for event in self._send(watcher, message)]

    def _send(self, caller: Caller, message: control.Message) -> list[events.Event]:
        outcome = self._clients.send(caller, message)
        if outcome is Outcome.SENT:
            return []
        if outcome is Outcome.FULL:
            logger.warning("a client does not read what it asked for; it is sent no more events")
        return [events.ClientGone(caller.client)]

    def _list_zygotes(
        self,
        caller: Caller,
        zygotes: Mapping[int, control.ZygoteStatus],
        unfit: tuple[control.ZygoteStatus, ...],
    ) -> list[events.Event]:
        found = (
            replace(each, rss_bytes=self._zygotes.memory_bytes(number))
            for number, each in zygotes.items()
        )
        return self._send(caller, control.ZygoteListing((*found, *unfit)))

    def _rotate(self, names: tuple[str, ...]) -> events.LogsSeen:
        limit, files = self._settings.log_bytes, self._settings.log_files
        sizes = {}
        for name in names:
            path = self._paths.log_file(name)
            sizes[name] = logs.size(path)
            if logs.rotate(path, limit, files):
                logger.info("rotated %s", path)
        for path in (self._paths.supervisor_log, self._paths.zygotes_log):
            if logs.rotate(path, limit, files):
                logger.info("rotated %s", path)
        return events.LogsSeen(sizes)
