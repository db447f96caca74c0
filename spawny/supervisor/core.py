"""The supervisor's one decision: an event in, actions out.

The rule: no clock, no socket, no process. `now` is an argument, in seconds of a clock that never
goes back; what is to be done is returned. Whatever is awaited has a deadline, and `next_deadline`
is the earliest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import control
from ..settings import Settings
from . import (
    actions,
    budget,
    configuration,
    endings,
    events,
    limits,
    listing,
    reports,
    requests,
    starts,
    upgrade,
    warmth,
)
from .fleet import Fleet

_DECISIONS: dict[type[events.Event], Callable[[Fleet, Any, float], None]] = {
    events.StartRequested: starts.on_start_requested,
    events.ChildSpawned: starts.on_child_spawned,
    events.MemoryMeasured: budget.on_measured,
    events.SpawnFailed: starts.on_spawn_failed,
    events.ForkRefused: starts.on_fork_refused,
    events.ZygoteReady: warmth.on_ready,
    events.ZygoteGone: warmth.on_gone,
    events.Requested: requests.on_requested,
    events.DaemonHello: reports.on_hello,
    events.DefinitionLoaded: reports.on_loaded,
    events.DefinitionFailed: reports.on_failed,
    events.ClientsChanged: reports.on_clients_changed,
    events.PongReceived: reports.on_pong,
    events.CallInterrupted: reports.on_interrupted,
    events.StacksDumped: reports.on_stacks,
    events.EndingAnnounced: reports.on_ending,
    events.RecycleRefused: limits.on_kept,
    events.SavingBegan: limits.on_saving,
    events.LimitReached: limits.on_limit,
    events.CallRunsLong: limits.on_long,
    events.LinkLost: reports.on_link_lost,
    events.ProcessExited: endings.on_process_exited,
    events.SessionSwept: endings.on_session_swept,
    events.ProcessesSeen: listing.on_processes_seen,
    events.HealthSampled: listing.on_sampled,
    events.JournalTried: reports.on_journal_tried,
    events.LogsSeen: listing.on_logs_seen,
    events.FilesLookedAt: reports.on_files_looked_at,
    events.DefinitionLost: reports.on_definition_lost,
    events.JournalRead: reports.on_journal_read,
    events.SuccessorChecked: upgrade.on_checked,
    events.SuccessionFailed: upgrade.on_succession_failed,
    events.HandedOver: upgrade.on_handed_over,
    events.Configured: configuration.on_configured,
    events.ReloadRequested: configuration.on_reload,
    events.DeclaredDue: configuration.on_due,
    events.ClientGone: requests.on_client_gone,
    events.ShutdownSignalled: lambda fleet, event, now: endings.begin_shutdown(fleet, None, now),
}

_REQUESTS = (events.StartRequested, events.Requested)


class Core:
    """Decides for all daemons of one supervisor.

    Args:
        settings: The figures.
        welcome: What this supervisor answers to a `Hello`.
        log_of: Where the log of a daemon is, for messages.
        jitter: Random numbers of [0, 1), for the backoff.
        now: The time of the start.
    """

    def __init__(
        self,
        settings: Settings,
        welcome: control.Welcome,
        *,
        log_of: Callable[[str], str],
        jitter: Callable[[], float],
        now: float,
    ) -> None:
        self.fleet = Fleet(settings, welcome, log_of, jitter, now)
        self._deadlines: dict[str, float] = {}  # of daemons, by name
        self._figured_with = settings

    def step(self, event: events.Event, now: float) -> list[actions.Action]:
        """What to do about `event`."""
        fleet = self.fleet
        if isinstance(event, events.DeadlineReached):
            self._pass_time(now)
        elif isinstance(event, _REQUESTS) and upgrade.is_held(fleet, event):
            fleet.held.append(event)
        else:
            if isinstance(event, _REQUESTS):
                fleet.touched_at = now
            _DECISIONS[type(event)](fleet, event, now)
        self._take_up_deferred(now)
        upgrade.settle(fleet, now)
        self._take_up_deferred(now)
        return fleet.take_actions()

    def _take_up_deferred(self, now: float) -> None:
        fleet = self.fleet
        while fleet.again:
            deferred = fleet.again.pop(0)
            _DECISIONS[type(deferred)](fleet, deferred, now)

    def touch(self, now: float) -> None:
        """Somebody asked for something that is still being looked up."""
        self.fleet.touched_at = now

    @property
    def is_shutting_down(self) -> bool:
        return self.fleet.shutting_down

    def link_of(self, name: str) -> int | None:
        """The link of a daemon, if it has one."""
        record = self.fleet.records.get(name)
        return record.link if record else None

    def next_deadline(self) -> float | None:
        """When `DeadlineReached` is due; None: not before something else happens."""
        fleet = self.fleet
        due = [each.deadline for each in fleet.listings]
        if (first := self._first_deadline()) is not None:
            due.append(first)
        due += [each.deadline for each in fleet.interrupts.values()]
        if (settles_at := upgrade.next_deadline(fleet)) is not None:
            due.append(settles_at)
        due += [each.deadline for each in fleet.dumps.values()]
        if fleet.logs_due is not None:
            due.append(fleet.logs_due)
        if not fleet.is_exiting:
            # Without daemons, too: a supervisor that nobody can reach must not live for ever.
            due.append(fleet.checked_at + fleet.settings.health_interval_seconds)
        if self._may_idle():
            due.append(fleet.touched_at + fleet.settings.idle_exit_seconds)
        return min(due, default=None)

    def _first_deadline(self) -> float | None:
        """That of the daemons: asked at every turn, so only what has changed is looked at."""
        fleet = self.fleet
        if fleet.settings is not self._figured_with:
            self._figured_with = fleet.settings
            fleet.changed.update(fleet.records)
        for name in fleet.changed:
            record = fleet.records.get(name)
            both = () if record is None else (record.deadline, limits.due(record, fleet.settings))
            at = min((each for each in both if each is not None), default=None)
            if at is None:
                self._deadlines.pop(name, None)
            else:
                self._deadlines[name] = at
        fleet.changed.clear()
        return min(self._deadlines.values(), default=None)

    def _pass_time(self, now: float) -> None:
        fleet = self.fleet
        for name, record in list(fleet.records.items()):
            if record.deadline is not None and now >= record.deadline:
                reports.on_deadline(fleet, fleet.records[name], now)
        for record in fleet.alive():
            limits.on_time(fleet, record.name, now)
        listing.settle(fleet, None, now)
        requests.expire_interrupts(fleet, now)
        requests.expire_dumps(fleet, now)
        if now >= fleet.checked_at + fleet.settings.health_interval_seconds:
            listing.check_health(fleet, now)
            warmth.look(fleet, now)
        elif fleet.logs_due is not None and now >= fleet.logs_due:
            listing.check_logs(fleet)
        if self._may_idle() and now >= fleet.touched_at + fleet.settings.idle_exit_seconds:
            fleet.is_exiting = True
            fleet.do(actions.Exit("nothing to supervise, and nobody asked for anything"))

    def _may_idle(self) -> bool:
        """Whether an auto-started supervisor is of no use to anybody now."""
        fleet = self.fleet
        return (
            not fleet.welcome.service
            and not fleet.is_exiting
            and fleet.upgrading is None
            and not fleet.watchers
            and not fleet.has_supervised()
        )
