"""Why a daemon is in its state, and how it ended, in sentences.

One rule: what is said is known. Where it is a guess the sentence says "most likely".
"""

from __future__ import annotations

from .. import control
from . import actions
from .fleet import Fleet
from .lifecycle import State
from .policy import describe_exit, shown_state
from .records import Record, Stage
from .values import Caller, Ending

# Of one daemon; the last ones of its processes.
ENDINGS_KEPT = 5


def with_ending(record: Record, now: float) -> Record:
    """The record with the end of its process noted down."""
    life = record.life
    ending = Ending(
        at=now,
        began_at=life.began_at,
        pid=record.identity.pid if record.identity else None,
        reason=life.reason,
        exit_code=life.exit_code,
        signal_name=life.signal_name,
        is_out_of_memory=life.is_out_of_memory,
        asked_by=life.asked_by,
        log_offset=life.log_offset,
    )
    return record.changed(endings=(ending, *record.endings)[:ENDINGS_KEPT])


def answer(fleet: Fleet, caller: Caller, name: str, now: float) -> None:
    """Explain a daemon that is known, with the last output of its last process that has ended."""
    record = fleet.find(name)
    if record is None:  # it has gone while its pong was waited for
        fleet.refuse_unknown(caller, name)
        return
    explanation = control.Explanation(
        name,
        shown_state(record, now, fleet.settings),
        why(fleet, record, now) + _drifted(record),
        tuple(_tell(each, now) for each in record.endings),
        log=fleet.log_of(name),
    )
    if not record.endings:
        fleet.reply(caller, explanation)
        return
    until = record.life.log_offset if record.identity is not None else None
    offset = record.endings[0].log_offset
    fleet.do(actions.Reply(caller, explanation, name, offset, until))


def _tell(ending: Ending, now: float) -> control.Ending:
    return control.Ending(
        seconds_ago=max(0.0, now - ending.at),
        uptime_seconds=max(0.0, ending.at - ending.began_at),
        pid=ending.pid,
        how=_how(ending),
        exit_code=ending.exit_code,
        signal_name=ending.signal_name,
        is_out_of_memory=ending.is_out_of_memory,
        asked_by=ending.asked_by,
    )


def _how(ending: Ending) -> str:
    if ending.exit_code is None and ending.signal_name is None:
        return ending.reason
    how = describe_exit(ending.exit_code, ending.signal_name, ending.is_out_of_memory)
    if not ending.reason or ending.reason.startswith(how):
        return ending.reason or how
    return f"{ending.reason}; {how}"


def why(fleet: Fleet, record: Record, now: float) -> str:
    """One sentence on the present."""
    life = record.life
    since = now - life.began_at
    limit = record.request.start_timeout
    match shown_state(record, now, fleet.settings):
        case "starting":
            return (
                f"its interpreter {record.interpreter.executable} has been coming up for"
                f" {since:.1f} s; it has {limit:g} s to be ready"
            )
        case "loading":
            return f"its definition has been running for {since:.1f} s; it has {limit:g} s"
        case "stopped":
            return "its process was stopped, by SIGSTOP or a debugger; SIGCONT lets it go on"
        case "zombie":
            return "its main thread has ended, and only other threads of it go on: stop it"
        case "uninterruptible":
            return (
                "its main thread is in a wait of the kernel that no signal ends, most likely for a"
                " disk or a network mount that does not answer"
            )
        case "busy":
            return _why_busy(record, now)
        case "unresponsive":
            return (
                f"no call runs, but it has not answered for {now - (life.pinged_at or now):.0f} s:"
                " most likely C code in it keeps the interpreter's lock; spawny stacks"
                f" {record.name} has more"
            )
        case "unlinked":
            return "it runs, but has no connection to the supervisor; it tries again by itself"
        case "stopping":
            return f"it is being ended ({_means(record)}): {life.reason}"
        case "waiting":
            wait = max(0.0, (record.deadline or now) - now)
            return f"it will be started again in {wait:.1f} s, after {_deaths(record)}"
        case "failed":
            return f"{life.reason}; spawny restart {record.name} starts it again"
        case "ended":
            return f"{life.reason}; spawny restart {record.name} starts it again"
    idle = record.request.idle_timeout
    told = "" if idle is None or life.clients else f", and ends after {idle:g} s without one"
    origin = "; it was forked from a zygote" if life.zygote else ""
    return f"it serves; no call runs, and {life.clients} clients are attached{told}{origin}"


def _drifted(record: Record) -> str:
    drift = record.life.drift if record.identity else ()
    if not drift:
        return ""
    return f"; what has changed since it was loaded: {', '.join(drift)}"


def _why_busy(record: Record, now: float) -> str:
    busy = record.life.busy
    if busy is None:
        return "it computes and answers nothing, most likely in C code that keeps the lock"
    seconds = busy.seconds + now - (record.life.pong_at or now)
    whose = f", called by the client with pid {busy.client_pid}" if busy.client_pid else ""
    return f"it has been running {busy.what} for {seconds:.1f} s{whose}"


def _means(record: Record) -> str:
    if record.state is State.SWEEPING:
        return "what it left is"
    return "asked" if record.life.stage is Stage.ASKED else record.life.stage.name


def _deaths(record: Record) -> str:
    count = max(1, len(record.deaths))
    return f"{count} death{'s' if count > 1 else ''}: {record.life.reason}"
