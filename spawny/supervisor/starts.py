"""How daemons come up: requests for one, and the answers to those who wait.

One rule: everybody who asked for a daemon that is starting gets the outcome of that one start.
"""

from __future__ import annotations

from dataclasses import replace

from .. import control
from . import actions, endings, warmth
from .events import ChildSpawned, ForkRefused, Requested, SpawnFailed, StartRequested
from .fleet import Fleet
from .lifecycle import Input, State
from .records import Life, Record, Waiter
from .values import Caller, Interpreter


def on_start_requested(fleet: Fleet, event: StartRequested, now: float) -> None:
    request, caller = event.request, event.caller
    record = fleet.records.get(request.name)
    if fleet.shutting_down:
        fleet.refuse(caller, "SupervisorUnavailable", "the supervisor is shutting down; try again")
    elif event.interpreter is None:
        fleet.refuse(caller, event.error, event.problem)
    elif record is None or record.state is State.FAILED:
        fresh = begin(fleet, request, event.interpreter, now)
        launch(fleet, fresh, now, waiters=(Waiter(caller, existing=False),))
    elif record.state in (State.STOPPING, State.SWEEPING):
        fleet.put(record.changed(deferred=(*record.deferred, event)))
    elif request.token == record.request.token:
        # Sent again, since the supervisor that took it first died before it answered.
        _answer_or_wait(fleet, record, Waiter(caller, existing=False), now)
    elif request.if_exists == "error":
        fleet.refuse(
            caller,
            "DaemonExists",
            f"daemon {request.name!r} runs already ({record.request.summary}) and"
            " if_exists='error' was asked for; attach to it, stop it, or choose another name",
        )
    elif request.if_exists == "replace" and request.replaces in (None, record.pid):
        fleet.put(record.changed(deferred=(*record.deferred, event)))
        reason = "replaced by a new definition"
        endings.stop(fleet, request.name, now, reason, asked_by=request.asked_by)
    elif difference := _difference(record, request, event.interpreter):
        fleet.refuse(
            caller,
            "DaemonExists",
            f"daemon {request.name!r} runs already, with {difference}; pass if_exists='replace' to"
            " replace it, attach to it as it is, or choose another name",
        )
    else:
        _answer_or_wait(fleet, record, Waiter(caller, existing=True), now)


def begin(
    fleet: Fleet, request: control.StartDaemon, interpreter: Interpreter, now: float
) -> Record:
    """A record to launch, of a daemon that is defined anew."""
    fleet.do(actions.KeepDefinition(request))
    before = fleet.find(request.name)
    is_same = before is not None and before.request.digest == request.digest
    return Record(
        # The record lives as long as the daemon; the definition is needed for a moment.
        replace(request, definition=b""),
        interpreter,
        State.ENDED,
        Life(began_at=now),
        endings=before.endings if before else (),
        restore=before.restore if before and is_same else "",
    )


def find(fleet: Fleet, event: Requested, name: str) -> None:
    """Answer when the daemon of this name can be reached. Unlike a request to start it, this does
    not cut a backoff short: nobody has decided anew that the daemon should run."""
    record = fleet.records.get(name)
    waiter = Waiter(event.caller, existing=True)
    if record is None or record.state is State.FAILED:
        fleet.refuse_unknown(event.caller, name)
    elif record.state in (State.STOPPING, State.SWEEPING):
        fleet.put(record.changed(deferred=(*record.deferred, event)))
    elif record.state in (State.WAITING, State.STARTING) or record.is_being_adopted:
        fleet.put(record.changed(waiters=(*record.waiters, waiter)))
    else:
        _tell_started(fleet, record, waiter)


def _difference(
    record: Record, request: control.StartDaemon, interpreter: Interpreter
) -> str | None:
    """What keeps the running daemon from being the one asked for, in words."""
    found = []
    if request.digest != record.request.digest:
        found.append(
            f"another definition ({record.request.summary or 'unknown'}, not {request.summary})"
        )
    if not request.python_is_default and interpreter.key != record.interpreter.key:
        found.append(
            f"another interpreter ({record.interpreter.executable}, not {interpreter.executable})"
        )
    return " and ".join(found) or None


def _answer_or_wait(fleet: Fleet, record: Record, waiter: Waiter, now: float) -> None:
    if record.state is State.WAITING:
        # Whoever asks now need not wait for the backoff; nothing ran before the request.
        launch(fleet, record, now, waiters=(Waiter(waiter.caller, existing=False),))
    elif record.state is State.STARTING or record.is_being_adopted:
        fleet.put(record.changed(waiters=(*record.waiters, waiter)))
    else:
        _tell_started(fleet, record, waiter)


def launch(
    fleet: Fleet,
    record: Record,
    now: float,
    *,
    waiters: tuple[Waiter, ...] = (),
    is_automatic: bool = False,
) -> None:
    """Start a process for a record that has none. By hand it is a new beginning: no deaths yet."""
    record = record.moved(
        Input.START,
        life=Life(began_at=now, is_automatic=is_automatic),
        identity=None,
        link=None,
        version="",
        deadline=now + record.request.start_timeout,
        waiters=(*record.waiters, *waiters),
        restarts=record.restarts + is_automatic,
        comes_back=False,
    )
    if not is_automatic:
        record = record.changed(failures=0, deaths=())
    fleet.put(record)
    fleet.do(actions.MeasureMemory(record.name))


def on_child_spawned(fleet: Fleet, event: ChildSpawned, now: float) -> None:
    record = fleet.records.get(event.name)
    if record is None or record.identity is not None:
        # It was given up while it was being spawned; nobody else will ever end it.
        fleet.do(actions.SignalDaemon(event.identity, "SIGKILL", event.mark))
        return
    record = record.changed(identity=event.identity).lived(log_offset=event.log_offset)
    fleet.put(record)
    fleet.do(actions.WriteJournal(record))
    if record.state is State.STOPPING:
        fleet.do(actions.SignalDaemon(event.identity, "SIGTERM", event.mark))
    elif event.zygote:
        # Its socket was there before it: clients need not wait for its hello.
        tell_waiters_started(fleet, record)
    warmth.count_fork(fleet, event.zygote)


def on_spawn_failed(fleet: Fleet, event: SpawnFailed, now: float) -> None:
    record = fleet.records.get(event.name)
    if record is not None and record.identity is None:
        endings.close(fleet, record.lived(reason=event.problem), now)


def on_fork_refused(fleet: Fleet, event: ForkRefused, now: float) -> None:
    """Start it plainly instead."""
    if event.is_stale:
        warmth.end(fleet, event.number)
    record = fleet.records.get(event.name)
    if record is None or record.identity is not None or record.life.zygote != event.number:
        return
    record = fleet.put(record.lived(zygote=0))
    if record.state is State.STARTING:
        fleet.do(actions.SpawnChild(record.request, record.interpreter))
    else:
        endings.close(fleet, record, now)


def tell_waiters_started(fleet: Fleet, record: Record) -> Record:
    """Answer everybody who waits for this daemon, and need not wait for its definition."""
    is_coming_up = record.state in (State.STARTING, State.LOADING)
    left = tuple(each for each in record.waiters if is_coming_up and each.until_ready)
    for waiter in record.waiters:
        if waiter not in left:
            _tell_started(fleet, record, waiter)
    return fleet.put(record.changed(waiters=left))


def tell_waiters_failed(fleet: Fleet, record: Record, traceback: str) -> Record:
    """The definition raised: whoever waits for it hears it now, and not when all is over."""
    for waiter in record.waiters:
        message = f"daemon {record.name!r} did not start: {record.life.reason}"
        refusal = control.Refused("DaemonStartError", message, remote_traceback=traceback)
        fleet.reply(waiter.caller, refusal)
    return fleet.put(record.changed(waiters=()))


def _tell_started(fleet: Fleet, record: Record, waiter: Waiter) -> None:
    # Every state in which this is said has a process.
    pid = record.identity.pid if record.identity else 0
    fleet.reply(
        waiter.caller,
        control.Started(record.name, pid, record.interpreter.executable, waiter.existing),
    )


def restart(
    fleet: Fleet, record: Record, caller: Caller, request: control.RestartDaemon, now: float
) -> None:
    """Start a record that has no process again, by hand, with another definition perhaps."""
    if isinstance(request, control.RenewDaemon) and request.digest:
        changed = replace(
            record.request,
            token=request.token,
            digest=request.digest,
            summary=request.summary,
            definition=request.definition,
        )
        # Of the same daemon, though its text was edited: what it has saved is for this one.
        record = begin(fleet, changed, record.interpreter, now).changed(restore=record.restore)
    waiter = Waiter(caller, existing=False, until_ready=True)
    launch(fleet, record, now, waiters=(waiter,))
