"""What daemons say over their links, and what a look at their processes shows.

One rule: a report is believed only from the link of the very process that it is about.
"""

from __future__ import annotations

from .. import control
from . import actions, endings, limits, listing, warmth
from .events import (
    CallInterrupted,
    ClientsChanged,
    DaemonHello,
    DefinitionFailed,
    DefinitionLoaded,
    DefinitionLost,
    EndingAnnounced,
    FilesLookedAt,
    JournalRead,
    JournalTried,
    LinkLost,
    PongReceived,
    StacksDumped,
)
from .fleet import Fleet
from .lifecycle import ALIVE, Input, State
from .records import Cause, Life, Record
from .requests import send_interrupts
from .starts import launch, tell_waiters_failed, tell_waiters_started
from .values import Identity

_HELLO = {
    "new": Input.HELLO_NEW,
    "loading": Input.HELLO_LOADING,
    "ready": Input.HELLO_READY,
    "failed": Input.HELLO_LOADING,
}

# A daemon whose definition raised waits up to 10 s for the client that asked for it, to tell it.
FAILED_GRACE_SECONDS = 15.0


def on_hello(fleet: Fleet, event: DaemonHello, now: float) -> None:
    record = fleet.records.get(event.name)
    if event.identity is None:
        return  # it is gone already; its link closes by itself
    if record is None:
        record = _adopt_unknown(fleet, event, event.identity, now)
    elif _is_of_this_start(record, event, event.identity):
        record = _take_over(fleet, record, event.identity)
    elif problem := _impostor(record, event):
        fleet.do(actions.CloseLink(event.link, f"{event.name!r} phoned home, but {problem}"))
        return
    _link_up(fleet, record, event, now)


def _impostor(record: Record, event: DaemonHello) -> str | None:
    if record.state not in ALIVE:
        return f"it was thought to be {record.state.value}"
    if event.token != record.request.token:
        return "another daemon of that name runs"
    if record.identity != event.identity:
        return (
            "from another process than the one that was started; does"
            f" {record.interpreter.executable} start a second one?"
        )
    return None


def _is_of_this_start(record: Record, event: DaemonHello, identity: Identity) -> bool:
    """Whether an earlier supervisor has started it for the same request, and died before it had
    written that down. (What is younger than the process that we have started came out of it.)"""
    return (
        record.state is State.STARTING
        and event.state == "new"
        and event.token == record.request.token
        and (record.identity is None or identity.start_ticks < record.identity.start_ticks)
    )


def _take_over(fleet: Fleet, record: Record, identity: Identity) -> Record:
    """Have this process instead of our own, which finds the daemon's place taken: neither has run
    anything of the definition."""
    fleet.do(actions.WatchProcess(record.name, identity))
    if record.identity is not None:
        fleet.do(actions.SignalDaemon(record.identity, "SIGKILL", record.request.mark))
    record = fleet.put(record.changed(identity=identity).lived(zygote=0))
    fleet.do(actions.WriteJournal(record))
    return record


def _adopt_unknown(fleet: Fleet, event: DaemonHello, identity: Identity, now: float) -> Record:
    """A daemon without a journal: all that is known of it is what it says."""
    request = control.StartDaemon(
        name=event.name,
        token=event.token,
        digest="",
        summary="definition unknown: its journal is lost",
        python=event.interpreter.executable,
        python_is_default=False,
        caller_python="",
        environ={},
        cwd="/",
        sys_path=[],
    )
    fleet.do(actions.WatchProcess(event.name, identity))
    record = Record(request, event.interpreter, State.UNLINKED, Life(now), identity)
    fleet.do(actions.WriteJournal(record))
    return record


def _link_up(fleet: Fleet, record: Record, event: DaemonHello, now: float) -> None:
    before = record
    if before.link is not None and before.link != event.link:
        fleet.do(actions.CloseLink(before.link))
    record = before.moved(_HELLO[event.state], link=event.link, version=event.version).lived(
        clients=event.clients, calls=event.calls, pinged_at=None, is_quiet=False
    )
    if record.state is State.READY:
        record = record.lived(recycle="", recycle_reason="")  # orders end with their link
    if record.state is State.READY:
        ready_at = now if record.life.ready_at is None else record.life.ready_at
        record = record.changed(deadline=None).lived(ready_at=ready_at)
        fleet.publish("adopted" if before.state is State.UNLINKED else "ready", record)
    elif record.state is State.LOADING:
        # A definition that began to load under an earlier supervisor gets its full time again.
        began_at = now if before.state is State.UNLINKED else record.life.began_at
        record = record.changed(deadline=began_at + record.request.start_timeout)
        fleet.publish("started", record, record.interpreter.executable)
    fleet.put(record)
    if record.state is State.STOPPING:
        fleet.do(actions.SendStop(event.link, record.life.reason))
    elif event.state == "new" and not record.request.digest:
        endings.stop(fleet, record.name, now, "its definition is lost", Cause.FAILURE)
    elif event.state == "new":
        # The client first: it connects while the daemon begins to load.
        record = tell_waiters_started(fleet, record)
        fleet.do(actions.SendLoad(event.link, record.request, record.restore))
    elif event.state == "failed":
        _await_failed(fleet, record, now, "its definition raised")
    record = fleet.records[record.name]
    if record.comes_back and record.state is not State.STOPPING:
        limits.resume(fleet, record, now)
        record = fleet.records[record.name]
    if record.state is not State.STOPPING:
        record = tell_waiters_started(fleet, record)
    listing.linked(fleet, record, now)
    send_interrupts(fleet, record)


def on_link_lost(fleet: Fleet, event: LinkLost, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None:
        fleet.put(record.moved(Input.LINK_LOST, link=None).lived(pinged_at=None))
        listing.settle(fleet, record.name, now)


def on_loaded(fleet: Fleet, event: DefinitionLoaded, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None and record.state is State.LOADING:
        was_restored = bool(record.restore)
        record = record.moved(Input.LOADED, deadline=None, restore="").lived(ready_at=now)
        record = tell_waiters_started(fleet, record)
        if was_restored:
            fleet.do(actions.WriteJournal(record))
        fleet.publish("ready", record, f"after {now - record.life.began_at:.2f} s")


def on_failed(fleet: Fleet, event: DefinitionFailed, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None and record.state is not State.STOPPING:
        _await_failed(fleet, record, now, f"its definition raised {event.error}", event.traceback)


def _await_failed(
    fleet: Fleet, record: Record, now: float, reason: str, traceback: str = ""
) -> None:
    record = endings.await_end(fleet, record, now, reason, Cause.FAILURE)
    record = tell_waiters_failed(fleet, record, traceback)
    fleet.put(record.changed(deadline=now + FAILED_GRACE_SECONDS))


def on_ending(fleet: Fleet, event: EndingAnnounced, now: float) -> None:
    record = fleet.linked(event.link)
    if record is None:
        return
    record = fleet.put(record.lived(is_saving=False))
    if event.saved:
        record = fleet.put(record.changed(restore=event.token))
    if record.state is not State.STOPPING:
        cause = Cause.RECYCLED if event.recycled else Cause.DECIDED
        record = record.changed(comes_back=event.recycled)
        record = endings.await_end(fleet, record, now, event.reason, cause)
    elif event.recycled:
        # So long it was saving its state.
        record = fleet.put(record.changed(deadline=now + fleet.settings.stop_grace_seconds))
    if event.recycled:
        fleet.do(actions.WriteJournal(record))


def on_clients_changed(fleet: Fleet, event: ClientsChanged, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None:
        fleet.put(record.lived(clients=event.clients, is_quiet=False))


def on_pong(fleet: Fleet, event: PongReceived, now: float) -> None:
    record = fleet.linked(event.link)
    if record is None:
        return
    fleet.put(
        record.lived(
            clients=event.clients,
            calls=event.calls,
            busy=event.busy,
            figures=event.figures,
            drift=event.drift,
            pong_at=now,
            pinged_at=None,
            is_quiet=not event.clients and event.busy is None,
        )
    )
    limits.on_pong(fleet, record.name, now)
    limits.check(fleet, record.name, now)
    listing.settle(fleet, record.name, now)


def on_interrupted(fleet: Fleet, event: CallInterrupted, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None and event.interrupt_id == 0 and not event.done:
        limits.on_not_interrupted(fleet, record)
    pending = fleet.interrupts.get(event.interrupt_id)
    if record is None or pending is None or pending.name != record.name:
        return
    del fleet.interrupts[event.interrupt_id]
    fleet.reply(pending.caller, control.Done("the call was interrupted" if event.done else ""))


def on_stacks(fleet: Fleet, event: StacksDumped, now: float) -> None:
    record = fleet.linked(event.link)
    pending = fleet.dumps.get(event.dump_id)
    if record is not None and pending is not None and pending.name == record.name:
        del fleet.dumps[event.dump_id]
        fleet.reply(pending.caller, control.Stacks(event.text))


def on_journal_tried(fleet: Fleet, event: JournalTried, now: float) -> None:
    """Say once that it cannot be written, and once that all of it is."""
    if event.problem is not None and fleet.journal_problem is None:
        fleet.journal_problem = event.problem
        detail = f"{event.problem}; it is tried again, and until then a new supervisor knows less"
        fleet.announce("journal", detail, event.name)
    elif event.problem is None and not event.name and fleet.journal_problem is not None:
        fleet.journal_problem = None
        fleet.announce("journal", "everything is written again")


def on_files_looked_at(fleet: Fleet, event: FilesLookedAt, now: float) -> None:
    """What had vanished is there again; or another supervisor has begun where it was."""
    if event.is_superseded:
        fleet.is_exiting = True
        fleet.do(actions.Exit("another supervisor has its lock and its place; the daemons run on"))
        return
    if event.problem is not None and fleet.files_problem is None:
        fleet.announce("files", event.problem)
    fleet.files_problem = event.problem
    if event.has_lost_journal:
        for record in [*fleet.ended.values(), *fleet.records.values()]:
            fleet.do(actions.WriteJournal(record))
    if event.mended:
        fleet.announce("files", f"had vanished, and are made anew: {', '.join(event.mended)}")


def on_definition_lost(fleet: Fleet, event: DefinitionLost, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None:
        reason = f"its definition is lost ({event.problem}): start it anew from its script"
        endings.stop(fleet, record.name, now, reason, Cause.FAILURE)


def on_journal_read(fleet: Fleet, event: JournalRead, now: float) -> None:
    """Take up what an earlier supervisor left."""
    # Nobody waits to be told how it goes on, as after a restart by policy.
    life = Life(began_at=now - event.age_seconds, is_automatic=True, reason=event.reason)
    record = Record(
        event.request,
        event.interpreter,
        State.WAITING,
        life,
        restarts=event.restarts,
        endings=event.endings,
        restore=event.restore,
    )
    if event.identity is not None:
        deadline = now + fleet.settings.adoption_seconds
        fleet.do(actions.WatchProcess(record.name, event.identity))
        record = record.changed(state=State.UNLINKED, identity=event.identity, deadline=deadline)
        if event.state == "waiting":
            # It is to be started anew, and may be ending already.
            record = record.changed(comes_back=True).lived(cause=Cause.DECIDED)
        fleet.put(record.lived(reason=""))
    elif event.state == "failed":
        fleet.put(record.changed(state=State.FAILED))
    elif event.state == "ended":
        last = event.endings[0] if event.endings else None
        if last is not None:
            record = record.lived(exit_code=last.exit_code, signal_name=last.signal_name)
        fleet.put(record.changed(state=State.ENDED))
    elif event.state == "waiting":
        fleet.put(record.changed(deadline=now))
    else:
        # It died while nobody watched. One that ended as it should has removed its socket.
        cause, how = (Cause.UNSAID, "died") if event.crashed else (Cause.DECIDED, "ended")
        reason = f"{how} while no supervisor ran"
        record = record.changed(state=State.SWEEPING).lived(cause=cause, reason=reason)
        fleet.do(actions.RemoveCallSocket(record.name))
        if event.left is None:
            endings.close(fleet, fleet.put(record), now)
        else:
            fleet.put(record.changed(identity=event.left))
            endings.sweep(fleet, record.name, now)


def on_deadline(fleet: Fleet, record: Record, now: float) -> None:
    """What `record` awaited has not come in time."""
    if record.state in (State.STARTING, State.LOADING):
        limit = record.request.start_timeout
        warmth.blame(fleet, record, "was not ready in time", now)
        endings.stop(fleet, record.name, now, f"not ready within {limit:g} s", Cause.FAILURE)
    elif record.state is State.STOPPING and record.identity is None:
        # It never got a process (a decision failed half-way): there is nothing to wait for.
        endings.close(fleet, record, now)
    elif record.state is State.STOPPING:
        endings.escalate(fleet, record, now)
    elif record.state is State.SWEEPING:
        endings.sweep_harder(fleet, record, now)
    elif record.state is State.WAITING:
        launch(fleet, record, now, is_automatic=True)
    else:
        # UNLINKED since the start: it lives, and its call socket is where it was.
        tell_waiters_started(fleet, record.changed(deadline=None))
