"""What clients ask for, other than a daemon.

One rule: every request is answered exactly once, here or by what it sets in motion.
"""

from __future__ import annotations

from dataclasses import replace

from .. import control
from . import actions, configuration, endings, limits, listing, once, starts, upgrade, warmth
from .events import ClientGone, Requested
from .fleet import Fleet, PendingInterrupt
from .lifecycle import ALIVE, State
from .records import Record
from .values import Caller

# A daemon's control thread answers at once, unless C code holds the interpreter's lock.
INTERRUPT_SECONDS = 5.0
STACKS_SECONDS = 3.0


def on_requested(fleet: Fleet, event: Requested, now: float) -> None:
    caller = event.caller
    if isinstance(event.request, once.Once) and not once.admit(fleet, caller, event.request):
        return
    match event.request:
        case control.Hello():
            fleet.reply(caller, fleet.welcome)
        case control.FindDaemon(name):
            if name in fleet.records or not configuration.find(fleet, caller, name, now):
                starts.find(fleet, event, name)
        case control.ListDaemons(name):
            listing.request(fleet, caller, name, now)
        case control.ListZygotes():
            warmth.list_zygotes(fleet, caller, now)
        case control.StopDaemon(name):
            _stop(fleet, caller, event.request, now)
        case control.RestartDaemon():
            _restart(fleet, event, event.request, now)
        case control.InterruptDaemon(name):
            _interrupt(fleet, caller, name, now)
        case control.WatchEvents():
            fleet.watchers[caller.client] = caller
            fleet.reply(caller, control.Done("watching"))
        case control.UnwatchEvents():
            fleet.watchers.pop(caller.client, None)
            fleet.reply(caller, control.Done("no longer watching"))
        case control.Upgrade():
            upgrade.request(fleet, caller, event.request, now)
        case control.ExplainDaemon(name):
            listing.request(fleet, caller, name, now, is_explained=True)
        case control.DumpStacks(name):
            _dump_stacks(fleet, caller, name, now)
        case control.Shutdown():
            endings.begin_shutdown(fleet, caller, now, event.request.asked_by)
        case other:
            kind = type(other).__name__
            fleet.refuse(caller, "InvalidRequest", f"{kind} is not a request")


def _stop(fleet: Fleet, caller: Caller, request: control.StopDaemon, now: float) -> None:
    record = fleet.records.get(request.name)
    if record is None:
        fleet.refuse_unknown(caller, request.name)
        return
    # Who says stop has seen the restart under way, and does not want it.
    message = f"daemon {request.name!r} was stopped by somebody else before it was started anew"
    record = endings.refuse_restarts(fleet, record, message)
    fleet.put(record.changed(stoppers=(*record.stoppers, caller)))
    endings.stop(fleet, request.name, now, request.reason, asked_by=request.asked_by)


def _restart(fleet: Fleet, event: Requested, request: control.RestartDaemon, now: float) -> None:
    name = request.name
    record: Record | None = fleet.find(name)
    renewed = request.pid if isinstance(request, control.RenewDaemon) else None
    is_running = record is not None and (record.state in ALIVE or record.state is State.SWEEPING)
    if fleet.shutting_down:
        fleet.refuse(event.caller, "SupervisorUnavailable", "the supervisor is shutting down")
    elif record is None:
        fleet.refuse_unknown(event.caller, name)
    elif not record.request.digest:
        fleet.refuse(
            event.caller,
            "InvalidRequest",
            f"daemon {name!r} cannot be restarted: its definition was lost with its journal;"
            " start it from its script with if_exists='replace'",
        )
    elif is_running and renewed not in (None, record.pid):
        starts.find(fleet, event, name)  # it was restarted meanwhile
    elif is_running:
        record = fleet.put(record.changed(deferred=(*record.deferred, event)))
        if not record.comes_back:
            limits.restart(fleet, record, now, request.asked_by, is_urgent=renewed is None)
    else:
        starts.restart(fleet, record, event.caller, request, now)


def _interrupt(fleet: Fleet, caller: Caller, name: str, now: float) -> None:
    record = fleet.records.get(name)
    if record is None:
        fleet.refuse_unknown(caller, name)
    elif record.link is None and not record.is_being_adopted:
        fleet.refuse(
            caller,
            "SupervisorUnavailable",
            f"daemon {name!r} is {record.state.value} and cannot be told to interrupt now",
        )
    else:
        fleet.interrupt_id += 1
        fleet.interrupts[fleet.interrupt_id] = PendingInterrupt(
            caller, name, now + INTERRUPT_SECONDS, is_sent=False
        )
        send_interrupts(fleet, record)


def send_interrupts(fleet: Fleet, record: Record) -> None:
    """What could not be sent for want of a link is sent now, if there is one."""
    if record.link is None:
        return
    for number, pending in fleet.interrupts.items():
        if pending.name == record.name and not pending.is_sent:
            fleet.interrupts[number] = replace(pending, is_sent=True)
            fleet.do(actions.SendInterrupt(record.link, number))


def _dump_stacks(fleet: Fleet, caller: Caller, name: str, now: float) -> None:
    record = fleet.records.get(name)
    if record is None or record.identity is None:
        fleet.refuse_unknown(caller, name)
    elif record.link is None:
        problem = f"daemon {name!r} is {record.state.value} and cannot be asked"
        fleet.do(actions.DescribeThreads(caller, record.identity, problem))
    else:
        fleet.interrupt_id += 1
        fleet.dumps[fleet.interrupt_id] = PendingInterrupt(caller, name, now + STACKS_SECONDS)
        fleet.do(actions.SendStacks(record.link, fleet.interrupt_id))


def expire_dumps(fleet: Fleet, now: float) -> None:
    for number, pending in list(fleet.dumps.items()):
        record = fleet.records.get(pending.name)
        if record is None or record.identity is None:
            del fleet.dumps[number]
            fleet.refuse_unknown(pending.caller, pending.name)
        elif now >= pending.deadline:
            del fleet.dumps[number]
            problem = (
                f"daemon {pending.name!r} has not answered within {STACKS_SECONDS:g} s: it is"
                " stopped, or C code in it keeps the interpreter's lock"
            )
            fleet.do(actions.DescribeThreads(pending.caller, record.identity, problem))


def on_client_gone(fleet: Fleet, event: ClientGone, now: float) -> None:
    fleet.watchers.pop(event.client, None)


def expire_interrupts(fleet: Fleet, now: float) -> None:
    for number, pending in list(fleet.interrupts.items()):
        if now >= pending.deadline:
            del fleet.interrupts[number]
            fleet.refuse(
                pending.caller,
                "CallTimeout",
                f"daemon {pending.name!r} has not answered within {INTERRUPT_SECONDS:g} s: it is"
                f" stopped, or in C code that cannot be interrupted; to end it: spawny stop"
                f" {pending.name}",
            )
