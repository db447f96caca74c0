"""What a daemon may use: beyond it, it is started anew between calls. How long calls may take.

One rule: only a call that outlasts its deadline is interrupted, and only a daemon that does not
heed that is killed. Every other limit waits for as long as the call that runs.
"""

from __future__ import annotations

from .. import control
from ..settings import Settings
from . import actions, endings
from .events import CallRunsLong, LimitReached, RecycleRefused, Requested, SavingBegan
from .fleet import Fleet
from .lifecycle import Input, State
from .records import Cause, LongCall, Record, Stage

# A daemon whose state could not be saved is asked again after so long.
RETRY_SECONDS = 60.0

# No limit is looked at for so long while the supervisor is being upgraded.
UPGRADE_SECONDS = 1.0

# From this share of max_rss on, a daemon is looked at every so often, and not only with all others.
NEAR_SHARE = 0.75
NEAR_SECONDS = 1.0

# A pong is a matter of microseconds, unless C code keeps the interpreter's lock.
PONG_SECONDS = 1.0


def exceeded(record: Record, now: float) -> str | None:
    """The limit that this daemon has reached, in words."""
    request, life = record.request, record.life
    if request.max_calls is not None and life.calls >= request.max_calls:
        return f"max_calls: it has served {life.calls} of {request.max_calls}"
    rss = life.sample.rss_bytes if life.sample else 0
    if request.max_rss is not None and rss > request.max_rss:
        return f"max_rss: it has {rss / 1e6:.1f} MB of {request.max_rss / 1e6:.1f}"
    if request.max_age is not None and now >= _old_at(record, request.max_age):
        return f"max_age: it has been ready for {request.max_age:g} s"
    return None


def _old_at(record: Record, max_age: float) -> float:
    ready_at = record.life.ready_at
    return max_age + (record.life.began_at if ready_at is None else ready_at)


def check(fleet: Fleet, name: str, now: float) -> None:
    """Have this daemon recycled if it is over a limit."""
    record = fleet.records[name]
    if not _may_be_recycled(record) or now < record.life.recycle_after:
        return
    reason = exceeded(record, now)
    if reason is None:
        return
    if fleet.upgrading is not None and fleet.upgrading.is_draining:
        # It would answer while nobody listens: the successor looks again.
        fleet.put(record.lived(recycle_after=now + UPGRADE_SECONDS))
    else:
        fleet.publish("limit", record, reason)
        order(fleet, record, reason)


def _may_be_recycled(record: Record) -> bool:
    is_serving = record.state is State.READY and record.link is not None
    # Without its definition it could not be started anew.
    return is_serving and not record.life.recycle and bool(record.request.digest)


def order(fleet: Fleet, record: Record, reason: str, *, is_urgent: bool = False) -> None:
    """Tell a daemon that has a link to make room for its successor."""
    assert record.identity is not None
    assert record.link is not None
    # What is saved belongs to this very process and order.
    fleet.recycle_id += 1
    token = f"{record.identity.pid}.{record.identity.start_ticks}.{fleet.recycle_id}"
    fleet.put(record.lived(recycle=token, recycle_reason=reason))
    fleet.do(actions.SendRecycle(record.link, reason, token, is_urgent))


def restart(
    fleet: Fleet, record: Record, now: float, asked_by: str = "", *, is_urgent: bool = True
) -> None:
    """Have this daemon make room for its successor, as somebody wants it: at once, or as soon as
    no call runs."""
    if is_urgent or record.state is not State.READY or record.link is None:
        make_room(fleet, record, now, "restart requested", asked_by)
    elif not record.life.recycle:
        order(fleet, record.lived(asked_by=asked_by), "restart requested, since it has drifted")
    record = fleet.put(fleet.records[record.name].changed(comes_back=True))
    fleet.do(actions.WriteJournal(record))


def make_room(fleet: Fleet, record: Record, now: float, reason: str, asked_by: str = "") -> None:
    """End this daemon, with its state saved for a successor of the same definition."""
    if record.state is State.READY and record.link is not None:
        record = record.lived(asked_by=asked_by)
        record = endings.await_end(fleet, record, now, reason, Cause.DECIDED)
        fleet.publish("stopping", record, reason)
        order(fleet, record, reason, is_urgent=True)
    else:
        endings.stop(fleet, record.name, now, reason, asked_by=asked_by)


def resume(fleet: Fleet, record: Record, now: float) -> None:
    """Go on with what an earlier supervisor has begun: it was to be started anew."""
    if record.state is State.READY:
        # It may have been given that order, or have been kept since: so this one is not urgent.
        order(fleet, record.lived(cause=Cause.UNSAID), "restart requested")
    else:
        restart(fleet, record, now)


def on_limit(fleet: Fleet, event: LimitReached, now: float) -> None:
    record = fleet.linked(event.link)
    if record is not None:
        fleet.put(record.lived(calls=event.calls))
        check(fleet, record.name, now)


def on_saving(fleet: Fleet, event: SavingBegan, now: float) -> None:
    """However long that takes: nobody but whoever stops the daemon has its state lost."""
    record = fleet.linked(event.link)
    if record is None or not record.life.recycle:
        return
    record = fleet.put(record.lived(is_saving=True))
    if record.state is State.STOPPING:
        fleet.put(record.changed(deadline=None))
    else:
        record = fleet.put(record.changed(comes_back=True))
        fleet.do(actions.WriteJournal(record))


def on_kept(fleet: Fleet, event: RecycleRefused, now: float) -> None:
    """The state of a daemon cannot be saved: it goes on as it is, and nothing is lost."""
    record = fleet.linked(event.link)
    if record is None or record.life.recycle != event.token:
        return
    detail = f"it was kept, since its state cannot be saved: {event.error}"
    record = record.changed(comes_back=False)
    record = record.lived(recycle="", is_saving=False)
    record = record.lived(recycle_after=now + RETRY_SECONDS, kept=detail)
    deferred, record = record.deferred, record.changed(deferred=())
    if record.state is State.STOPPING:
        record = record.moved(Input.KEPT, deadline=None)
        record = record.lived(cause=Cause.UNSAID, reason="", stop_at=None)
    for each in deferred:
        if isinstance(each, Requested) and isinstance(each.request, control.RestartDaemon):
            message = f"daemon {record.name!r} was not restarted: {detail}"
            refusal = control.Refused("SpawnyError", message, remote_traceback=event.traceback)
            fleet.reply(each.caller, refusal)
        else:
            fleet.again.append(each)
    fleet.publish("kept", fleet.put(record), detail)
    fleet.do(actions.WriteJournal(record))


# --- the deadline of calls ------------------------------------------------------------------------


def on_long(fleet: Fleet, event: CallRunsLong, now: float) -> None:
    """A call has been running for half of what it may take."""
    record = fleet.linked(event.link)
    if record is None or record.request.call_deadline is None:
        return
    due = now - event.seconds + record.request.call_deadline
    call = LongCall(event.connection, event.call, event.what, due)
    fleet.put(record.lived(long_call=call))
    on_time(fleet, record.name, now)


def on_not_interrupted(fleet: Fleet, record: Record) -> None:
    """The call that took too long was over by then."""
    fleet.put(record.lived(long_call=None))


def on_pong(fleet: Fleet, name: str, now: float) -> None:
    """After its interrupt: does the call still run?"""
    record = fleet.records[name]
    call = record.life.long_call
    if call is None or call.stage is not Stage.SIGTERM:
        return
    busy = record.life.busy
    if busy is None or (busy.connection, busy.call) != (call.connection, call.call):
        fleet.put(record.lived(long_call=None))
    else:
        _end(fleet, record, call, now)


def _end(fleet: Fleet, record: Record, call: LongCall, now: float) -> None:
    limit = record.request.call_deadline or 0.0
    reason = f"call_deadline: {call.what} took more than {limit:g} s and ignored its interrupt"
    fleet.publish("limit", record, reason)
    record = fleet.put(record.lived(long_call=None))
    record = endings.await_end(fleet, record, now, reason, Cause.FAILURE)
    endings.escalate(fleet, record, now)  # to ask is of no use: what is asked does not listen


def due(record: Record, settings: Settings) -> float | None:
    """When `on_time` is to be called for this daemon."""
    if record.state is not State.READY or record.link is None:
        return None
    request, life, times = record.request, record.life, []
    if life.long_call is not None:
        times.append(life.long_call.due)
    if (deaf_at := _deaf_at(record, settings)) is not None:
        times.append(deaf_at)
    if _may_be_recycled(record):
        if request.max_age is not None:
            times.append(max(_old_at(record, request.max_age), life.recycle_after))
        if life.kept:
            times.append(life.recycle_after)
        if _is_near(record):
            times.append(life.sampled_at + NEAR_SECONDS)
    return min(times, default=None)


def _deaf_at(record: Record, settings: Settings) -> float | None:
    """C code that keeps the interpreter's lock lets nobody tell of its call. But then a ping stays
    unanswered, for as long as a call may take and ignore its interrupt."""
    life, limit = record.life, record.request.call_deadline
    is_halted = life.process_state in ("stopped", "zombie")
    if limit is None or life.pinged_at is None or life.long_call is not None or is_halted:
        return None
    return life.pinged_at + limit + settings.stop_grace_seconds


def _is_near(record: Record) -> bool:
    limit, look = record.request.max_rss, record.life.sample
    return limit is not None and look is not None and look.rss_bytes >= NEAR_SHARE * limit


def on_time(fleet: Fleet, name: str, now: float) -> None:
    """What is due by now."""
    record = fleet.records[name]
    when = due(record, fleet.settings)
    if when is None or now < when:
        return
    life = record.life
    if life.long_call is not None and now >= life.long_call.due:
        _press(fleet, record, life.long_call, now)
        return
    deaf_at = _deaf_at(record, fleet.settings)
    if deaf_at is not None and now >= deaf_at:
        # Somebody may just have let it go on: it is asked once more.
        _ping(fleet, record, LongCall(-1, -1, "C code that keeps the interpreter's lock", now), now)
        return
    if life.kept and now >= life.recycle_after:
        record = fleet.put(record.lived(kept=""))
    check(fleet, name, now)
    record = fleet.records[name]
    is_near = _may_be_recycled(record) and _is_near(record)
    if is_near and record.identity and now >= record.life.sampled_at + NEAR_SECONDS:
        fleet.put(record.lived(sampled_at=now))
        fleet.do(actions.SampleHealth(((name, record.identity),)))


def _press(fleet: Fleet, record: Record, call: LongCall, now: float) -> None:
    """The next step against a call that takes too long."""
    assert record.link is not None
    if call.stage is Stage.ASKED and not call.is_asked:
        limit = record.request.call_deadline or 0.0
        text = (
            f"{call.what} in daemon {record.name!r} took more than {limit:g} s, its call_deadline,"
            " and was interrupted"
        )
        grace = now + fleet.settings.stop_grace_seconds
        fleet.put(record.lived(long_call=call.changed(is_asked=True, due=grace)))
        fleet.publish("limit", record, f"call_deadline: {call.what} is interrupted")
        fleet.do(actions.InterruptCall(record.link, call.connection, call.call, text))
    elif call.stage is Stage.ASKED:
        _ping(fleet, record, call, now)
    else:
        _end(fleet, record, call, now)


def _ping(fleet: Fleet, record: Record, call: LongCall, now: float) -> None:
    """Does it still run?"""
    assert record.link is not None
    waits = call.changed(stage=Stage.SIGTERM, due=now + PONG_SECONDS)
    fleet.put(record.lived(long_call=waits, pinged_at=now))
    fleet.do(actions.PingDaemon(record.link))
