"""How daemons end: asked, then signalled, then swept up after, then perhaps restarted.

One rule: an ending is over only when nothing of the daemon is left, and only then is anybody told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from .. import control
from . import actions, warmth
from .events import Deferrable, ProcessExited, Requested, SessionSwept
from .explaining import with_ending
from .fleet import Fleet
from .lifecycle import ALIVE, Input, State
from .policy import after_death, backoff_seconds, describe_exit, is_to_give_up, is_to_restart
from .records import Cause, Record, Stage
from .values import Caller


def stop(
    fleet: Fleet,
    name: str,
    now: float,
    reason: str,
    cause: Cause = Cause.DECIDED,
    asked_by: str = "",
) -> None:
    """Begin to end a daemon; no matter when it has begun already."""
    record = fleet.records[name]
    record = record.lived(asked_by=record.life.asked_by or asked_by).changed(comes_back=False)
    if record.state in (State.WAITING, State.FAILED):
        close(fleet, record.lived(cause=cause, reason=reason, stop_at=None), now)
    elif record.state in (State.STOPPING, State.SWEEPING):
        # Whatever it was ending of, now it shall not come back.
        _hurry(fleet, fleet.put(record.lived(cause=cause)), now, reason)
    else:
        record = await_end(fleet, record, now, reason, cause)
        fleet.publish("stopping", record, reason)
        if record.link is not None:
            fleet.do(actions.SendStop(record.link, reason, bool(record.deferred)))
        else:
            escalate(fleet, record, now)


def _hurry(fleet: Fleet, record: Record, now: float, reason: str) -> None:
    """One that is ending by itself, in its own time, is asked to do so now."""
    if record.state is State.STOPPING and record.life.stage is Stage.ASKED and record.link:
        soon = now + fleet.settings.stop_grace_seconds
        fleet.do(actions.SendStop(record.link, reason))
        fleet.put(record.changed(deadline=min(soon, record.deadline or soon)))


def await_end(fleet: Fleet, record: Record, now: float, reason: str, cause: Cause) -> Record:
    """The daemon is about to end, asked or not: it gets its grace."""
    if record.identity is not None:
        fleet.do(actions.SnapshotDescendants(record.identity, record.request.mark))
    return fleet.put(
        record.moved(Input.STOP, deadline=now + fleet.settings.stop_grace_seconds).lived(
            cause=cause, reason=reason, stop_at=now
        )
    )


def escalate(fleet: Fleet, record: Record, now: float) -> None:
    """The grace is over: the next sharper means."""
    stage = Stage(min(record.life.stage + 1, Stage.SIGKILL_AGAIN))
    if stage is Stage.SIGKILL_AGAIN:
        # Only a process in an uninterruptible wait of the kernel (a dead network disk) gets here.
        for caller in record.stoppers:
            fleet.refuse(
                caller,
                "SpawnyError",
                f"daemon {record.name!r} (pid {_pid(record)}) does not end even on SIGKILL: the"
                " operating system holds it, most likely in disk or network I/O",
            )
        record = record.changed(stoppers=())
    if record.identity is not None:
        if stage is Stage.SIGTERM:
            fleet.do(actions.SnapshotDescendants(record.identity, record.request.mark))
        signal: Literal["SIGTERM", "SIGKILL"] = "SIGTERM" if stage is Stage.SIGTERM else "SIGKILL"
        fleet.do(actions.SignalDaemon(record.identity, signal, record.request.mark))
    fleet.put(record.changed(deadline=now + fleet.settings.term_grace_seconds).lived(stage=stage))


def on_process_exited(fleet: Fleet, event: ProcessExited, now: float) -> None:
    record = fleet.records.get(event.name)
    if record is None or record.identity != event.identity or record.state not in ALIVE:
        return
    if record.link is not None:
        fleet.do(actions.CloseLink(record.link))
    warmth.on_exit(fleet, record, event, now)
    life = record.life
    is_out_of_memory = event.is_out_of_memory and life.stage < Stage.SIGKILL
    how = describe_exit(event.exit_code, event.signal_name, is_out_of_memory)
    if not life.reason and life.busy is not None:
        how += f" during call {life.busy.what}"
    has_lost_state = life.is_saving and life.stage is Stage.ASKED
    reason = life.reason or how
    if has_lost_state:
        how += " while it saved its state, which is lost"
        reason = f"{life.reason}; {how}" if life.reason else how
    if has_lost_state or record.state is not State.STOPPING:
        fleet.publish("died", record, how)
    if has_lost_state:
        lost = f"daemon {record.name!r} is started anew without its state: it {how}"
        record = refuse_restarts(fleet, record, lost)
    record = record.moved(Input.EXIT, link=None).lived(
        is_out_of_memory=is_out_of_memory,
        exit_code=event.exit_code,
        signal_name=event.signal_name,
        reason=reason,
        stop_at=life.stop_at if life.stop_at is not None else now,
    )
    fleet.put(record)
    _answer_interrupts(fleet, record.name)
    fleet.do(actions.RemoveCallSocket(record.name))
    sweep(fleet, record.name, now)


def refuse_restarts(fleet: Fleet, record: Record, message: str) -> Record:
    """Those who have asked for a restart will not have what they asked for."""
    left: list[Deferrable] = []
    for each in record.deferred:
        if isinstance(each, Requested) and isinstance(each.request, control.RestartDaemon):
            fleet.refuse(each.caller, "SpawnyError", message)
        else:
            left.append(each)
    return fleet.put(record.changed(deferred=tuple(left)))


def sweep(fleet: Fleet, name: str, now: float) -> None:
    """Begin to end what a dead daemon left."""
    record = fleet.records[name]
    assert record.identity is not None
    fleet.put(record.changed(deadline=now + fleet.settings.term_grace_seconds))
    fleet.do(actions.SweepSession(name, record.identity, "SIGTERM", record.request.mark))


def _answer_interrupts(fleet: Fleet, name: str) -> None:
    for number, pending in list(fleet.interrupts.items()):
        if pending.name == name:
            del fleet.interrupts[number]
            fleet.refuse(pending.caller, "DaemonDied", f"daemon {name!r} has ended meanwhile")


def on_session_swept(fleet: Fleet, event: SessionSwept, now: float) -> None:
    record = fleet.records.get(event.name)
    if record is None or record.state is not State.SWEEPING or record.identity != event.identity:
        return
    if event.left == 0:
        close(fleet, record, now)


def sweep_harder(fleet: Fleet, record: Record, now: float) -> None:
    """What the daemon left ignores SIGTERM; what even ignores SIGKILL is not waited for."""
    if record.life.is_swept_hard or record.identity is None:
        close(fleet, record, now)
        return
    deadline = now + fleet.settings.term_grace_seconds
    fleet.put(record.changed(deadline=deadline).lived(is_swept_hard=True))
    fleet.do(actions.SweepSession(record.name, record.identity, "SIGKILL", record.request.mark))


def close(fleet: Fleet, record: Record, now: float) -> None:
    """Nothing of the process is left: tell who waits, and see whether it comes back."""
    _answer(fleet, record, now)
    if record.state not in (State.WAITING, State.FAILED):
        record = with_ending(record, now)
    deferred, cause = record.deferred, record.life.cause
    record = record.changed(
        deadline=None, waiters=(), stoppers=(), deferred=(), identity=None, link=None
    )
    comes_back = cause is Cause.RECYCLED or (record.comes_back and cause is Cause.DECIDED)
    if comes_back and not fleet.shutting_down:
        # Now, and by the rule for all that waits: no death, and no backoff.
        if cause is Cause.RECYCLED or not deferred:  # nobody has asked for it
            record = record.changed(restart_reason=record.life.reason)
        record = record.moved(Input.RETRY, deadline=now, comes_back=False)
        fleet.publish("restarting", fleet.put(record), record.life.reason)
        fleet.do(actions.WriteJournal(record))
    elif fleet.shutting_down or not is_to_restart(record):
        record = record.moved(Input.CLOSE, comes_back=False)
        fleet.publish("ended", fleet.put(record), record.life.reason)
        if record.life.cause is Cause.DECIDED and not record.request.is_named:
            # Nobody can ask for it by its name.
            fleet.do(actions.DropJournal(record.name))
            fleet.do(actions.RemoveLog(record.name))
        else:
            fleet.do(actions.WriteJournal(fleet.ended[record.name]))
    else:
        _retry_or_give_up(fleet, after_death(record, now, fleet.settings), now)
    fleet.touched_at = now
    fleet.again.extend(_joined(deferred))
    finish_shutdown(fleet)


def _joined(deferred: tuple[Deferrable, ...]) -> Iterator[Deferrable]:
    """Of several restarts one is made; whoever wanted the others is told of that one."""
    is_restarted = False
    for each in deferred:
        if isinstance(each, Requested) and isinstance(each.request, control.RestartDaemon):
            if is_restarted:
                each = replace(each, request=control.FindDaemon(each.request.name))
            is_restarted = True
        yield each


def _retry_or_give_up(fleet: Fleet, record: Record, now: float) -> None:
    if is_to_give_up(record, fleet.settings):
        record = record.moved(Input.GIVE_UP)
        detail = f"died {len(record.deaths)} times, given up; last: {record.life.reason}"
        record = fleet.put(record.lived(reason=detail))
        fleet.publish("failed", record, detail)
    else:
        wait = backoff_seconds(record.failures, fleet.jitter(), fleet.settings)
        record = record.moved(Input.RETRY, deadline=now + wait)
        record = fleet.put(record.changed(restart_reason=record.life.reason))
        fleet.publish("restarting", record, f"{record.life.reason}; again in {wait:.1f} s")
    fleet.do(actions.WriteJournal(record))


def _answer(fleet: Fleet, record: Record, now: float) -> None:
    life = record.life
    for waiter in record.waiters:
        refusal = control.Refused(
            "DaemonStartError",
            f"daemon {record.name!r} did not start: {life.reason}"
            f" (interpreter {record.interpreter.executable})",
            exit_code=life.exit_code,
            signal_name=life.signal_name,
        )
        fleet.do(actions.Reply(waiter.caller, refusal, record.name, life.log_offset))
    detail = f"daemon {record.name!r} {_how_it_ended(record, now)}"
    for caller in record.stoppers:
        fleet.reply(caller, control.Done(detail))
    for caller in fleet.shutdown_callers:
        fleet.reply(caller, control.Progress(detail))


def _how_it_ended(record: Record, now: float) -> str:
    life = record.life
    if life.stop_at is None:
        return "was not running; it will not be restarted"
    means = f" by {Stage(min(life.stage, Stage.SIGKILL)).name}" if life.stage else ""
    return f"ended{means} after {now - life.stop_at:.1f} s"


def begin_shutdown(fleet: Fleet, caller: Caller | None, now: float, asked_by: str = "") -> None:
    """End every daemon, at once; `finish_shutdown` follows when the last is gone."""
    if caller is not None:
        fleet.shutdown_callers.append(caller)
    fleet.shutting_down = True
    warmth.end_all(fleet)
    for name in list(fleet.records):
        stop(fleet, name, now, "shutdown", asked_by=asked_by)
    finish_shutdown(fleet)


def finish_shutdown(fleet: Fleet) -> None:
    if not fleet.shutting_down or fleet.records or fleet.is_exiting:
        return
    for caller in fleet.shutdown_callers:
        fleet.reply(caller, control.Done("the supervisor has ended"))
    fleet.is_exiting = True
    fleet.do(actions.Exit("shutdown"))


def _pid(record: Record) -> int | None:
    return record.identity.pid if record.identity else None
