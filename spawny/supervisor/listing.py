"""What clients are told of daemons: a status each, as fresh as the daemons answer.

One rule: a listing waits a quarter of a second for pongs and not longer (a second for daemons that
are being adopted); a daemon that is silent is listed as it was last known, and so is one without
clients, who has said all there is to say. What its process does is looked up for each listing: one
that is stopped cannot tell.
"""

from __future__ import annotations

from .. import control
from . import actions, budget, explaining, limits
from .events import HealthSampled, LogsSeen, ProcessesSeen
from .fleet import Fleet, PendingListing
from .lifecycle import ALIVE, State
from .policy import describe_exit, shown_state
from .records import Record
from .values import Caller, Identity, ProcessState

PONG_SECONDS = 0.25

# A new supervisor pokes every daemon, which links up within milliseconds; a listing asked for
# meanwhile would tell of a fleet without links.
_ADOPTION_SECONDS = 1.0

# A daemon that has left a ping unanswered for so long is not waited for again.
_DEAF_AFTER_SECONDS = 1.0

# Asked in a loop, a listing still costs one look at all processes a second.
_SAMPLE_AGE_SECONDS = 1.0

# Logs that grow as fast as the disk takes it are looked at so often, and not more: each look cuts
# them, and keeps the end.
SOONEST_LOOK_SECONDS = 0.1


def request(
    fleet: Fleet, caller: Caller, name: str | None, now: float, *, is_explained: bool = False
) -> None:
    if name is not None and fleet.find(name) is None:
        fleet.refuse_unknown(caller, name)
        return
    if name is None:
        asked = [each for each in fleet.alive() if not each.life.is_quiet]
    else:
        asked = [each for each in fleet.alive() if each.name == name]
    awaited = {each.name for each in asked if _ping(fleet, each, now)}
    is_new = any(each.life.sample is None for each in fleet.alive())
    is_adopting = any(fleet.records[each].is_being_adopted for each in awaited)
    patience = _ADOPTION_SECONDS if is_adopting else PONG_SECONDS
    fleet.listings.append(PendingListing(caller, name, awaited, now + patience, is_explained))
    look = sample if is_new or now - fleet.sampled_at >= _SAMPLE_AGE_SECONDS else _glance
    if not look(fleet, now):
        settle(fleet, None, now)


def _ping(fleet: Fleet, record: Record, now: float) -> bool:
    """Ping a daemon unless a ping is under way; whether a pong is to be waited for."""
    if record.link is None:
        return record.is_being_adopted
    if record.life.pinged_at is not None:
        return now - record.life.pinged_at < _DEAF_AFTER_SECONDS
    fleet.do(actions.PingDaemon(record.link))
    fleet.put(record.lived(pinged_at=now))
    return True


def linked(fleet: Fleet, record: Record, now: float) -> None:
    """A daemon has linked up: listings that waited for it wait for its pong."""
    if any(record.name in each.awaited for each in fleet.listings):
        _ping(fleet, record, now)


def _processes(fleet: Fleet) -> tuple[tuple[str, Identity], ...]:
    return tuple((each.name, each.identity) for each in fleet.alive() if each.identity)


def sample(fleet: Fleet, now: float) -> bool:
    """Look at every process; False where there is none."""
    fleet.sampled_at = now
    processes = _processes(fleet)
    if processes:
        fleet.do(actions.SampleHealth(processes))
    return bool(processes)


def _glance(fleet: Fleet, now: float) -> bool:
    """See no more of every process than what it does."""
    processes = _processes(fleet)
    if processes:
        fleet.do(actions.GlanceAtProcesses(processes))
    return bool(processes)


def on_sampled(fleet: Fleet, event: HealthSampled, now: float) -> None:
    for name, seen in event.samples.items():
        record = fleet.records.get(name)
        if record is not None and record.state in ALIVE:
            _see(fleet, record.lived(sample=seen), seen.state, now)
            budget.learn(fleet, record, seen.rss_bytes)
            limits.check(fleet, name, now)
    settle(fleet, None, now)


def on_processes_seen(fleet: Fleet, event: ProcessesSeen, now: float) -> None:
    for name, state in event.states.items():
        record = fleet.records.get(name)
        if record is not None and record.state in ALIVE:
            _see(fleet, record, state, now)
    settle(fleet, None, now)


def _see(fleet: Fleet, record: Record, state: ProcessState, now: float) -> None:
    if state != record.life.process_state:
        since = now if state == "uninterruptible" else None
        record = record.lived(process_state=state, uninterruptible_since=since)
    fleet.put(record)
    if state == "stopped":
        settle(fleet, record.name, now)  # there is no answer to wait for


def check_health(fleet: Fleet, now: float) -> None:
    """The regular look: processes from outside, daemons by a ping, logs by their size."""
    fleet.checked_at = now
    # Before the pings, at which daemons look after their own sockets.
    fleet.do(actions.LookAtFiles())
    if sample(fleet, now):
        fleet.do(actions.CountKills(tuple(identity for _, identity in _processes(fleet))))
    if fleet.journal_problem:
        fleet.do(actions.RetryJournal())
    for record in fleet.alive():
        _ping(fleet, record, now)
    check_logs(fleet)


def check_logs(fleet: Fleet) -> None:
    """See what daemons have written."""
    fleet.logs_due = None
    if names := tuple(each.name for each in fleet.alive()):
        fleet.do(actions.RotateLogs(names))


def on_logs_seen(fleet: Fleet, event: LogsSeen, now: float) -> None:
    """Look again soon where a log grows so fast that it would be far over the limit by then."""
    limit = fleet.settings.log_bytes
    known, elapsed = fleet.log_sizes, max(now - fleet.logs_seen_at, SOONEST_LOOK_SECONDS)
    # Of one that is new here, how much of it is old is not known.
    grown = (size - known.get(name, min(size, limit)) for name, size in event.sizes.items())
    bytes_per_second = max(grown, default=0) / elapsed
    fleet.log_sizes = {name: 0 if n > limit else n for name, n in event.sizes.items()}
    fleet.logs_seen_at = now
    if bytes_per_second * fleet.settings.health_interval_seconds > limit:
        fleet.logs_due = now + max(limit / bytes_per_second, SOONEST_LOOK_SECONDS)


def settle(fleet: Fleet, name: str | None, now: float) -> None:
    """Answer the listings that need wait no longer, now that `name` has answered or gone."""
    pending, fleet.listings = fleet.listings, []
    for each in pending:
        each.awaited.discard(name or "")
        if each.awaited and now < each.deadline:
            fleet.listings.append(each)
        elif each.is_explained:
            assert each.name is not None
            explaining.answer(fleet, each.caller, each.name, now)
        else:
            fleet.reply(each.caller, control.Listing(_statuses(fleet, each.name, now)))


def _statuses(fleet: Fleet, name: str | None, now: float) -> tuple[control.DaemonStatus, ...]:
    if name is None:
        shown = sorted(fleet.records.values(), key=lambda each: each.name)
    else:
        found = fleet.find(name)
        shown = [found] if found else []
    return tuple(status(fleet, each, now) for each in shown)


def status(fleet: Fleet, record: Record, now: float) -> control.DaemonStatus:
    life, look = record.life, record.life.sample
    is_there = record.identity is not None
    busy = life.busy if record.state is State.READY else None
    return control.DaemonStatus(
        name=record.name,
        state=shown_state(record, now, fleet.settings),
        pid=record.identity.pid if record.identity else None,
        python=record.interpreter.executable,
        uptime_seconds=now - life.began_at if is_there else 0.0,
        rss_bytes=look.rss_bytes if look and is_there else 0,
        cpu_percent=look.cpu_percent if look and is_there else 0.0,
        clients=life.clients if is_there else 0,
        calls=life.calls,
        restarts=record.restarts,
        version=record.version,
        summary=record.request.summary,
        reason=_reason(record, now, fleet),
        busy_seconds=busy.seconds + now - (life.pong_at or now) if busy else None,
        busy_call=busy.what if busy else None,
        busy_client_pid=busy.client_pid if busy else None,
        idle_timeout=record.request.idle_timeout,
        restart=record.request.restart,
        log=fleet.log_of(record.name),
        exit_code=life.exit_code,
        signal_name=life.signal_name,
        calls_failed=life.figures.failed,
        call_p50_seconds=life.figures.seconds_of(0.5),
        call_p90_seconds=life.figures.seconds_of(0.9),
        call_p99_seconds=life.figures.seconds_of(0.99),
        max_rss=record.request.max_rss,
        max_calls=record.request.max_calls,
        max_age=record.request.max_age,
        call_deadline=record.request.call_deadline,
        restart_reason=record.restart_reason,
        drift=list(life.drift) if is_there else [],
    )


def _reason(record: Record, now: float, fleet: Fleet) -> str:
    life = record.life
    if life.reason and (life.exit_code is not None or life.signal_name is not None):
        how = describe_exit(life.exit_code, life.signal_name, life.is_out_of_memory)
        return life.reason if life.reason.startswith(how) else f"{life.reason}; {how}"
    if record.state is State.READY and life.pinged_at is not None:
        silent = now - life.pinged_at
        if silent >= fleet.settings.unresponsive_after_seconds:
            return f"has not answered for {silent:.0f} s"
    if record.state is State.READY and life.recycle:
        return f"to be started anew between calls: {life.recycle_reason}"
    return life.reason or life.kept
