"""The rules of thumb, each a pure function: when to restart, when to give up, what to show."""

from __future__ import annotations

from dataclasses import replace

from ..settings import Settings
from .lifecycle import State
from .records import Cause, Record

# Below this share of one core a process that answers no ping is not computing something; above it
# it is, most likely in C code that holds the interpreter's lock.
_COMPUTING_CPU_PERCENT = 20.0

# Whoever reads a file is in an uninterruptible wait now and then; one that lasts is another thing.
_UNINTERRUPTIBLE_SECONDS = 1.0


def backoff_seconds(failures: int, jitter: float, settings: Settings) -> float:
    """How long to wait before the restart after so many deaths in a row.

    `jitter` is a random number of [0, 1): many daemons that died of one cause come back apart.
    """
    # Past 2^60 the cap holds whatever the base; an unbounded shift would not fit a float.
    doubled = settings.backoff_base_seconds * 2.0 ** min(max(failures - 1, 0), 60)
    return min(settings.backoff_cap_seconds, doubled) * (0.5 + jitter / 2)


def is_to_restart(record: Record) -> bool:
    """Whether the restart policy applies to the way this daemon has ended."""
    life = record.life
    if life.cause is Cause.DECIDED:
        return False
    # A start by hand that never came up: whoever asked for it was told, and decides.
    if life.ready_at is None and not life.is_automatic:
        return False
    if record.request.restart == "on-failure":
        # An end that was not announced, of unknown status, counts as a failure.
        return life.cause is Cause.FAILURE or life.exit_code != 0
    return record.request.restart == "always"


def after_death(record: Record, now: float, settings: Settings) -> Record:
    """The record with this death counted; a healthy stretch before it forgets the earlier ones."""
    ready_at = record.life.ready_at
    if ready_at is not None and now - ready_at >= settings.healthy_after_seconds:
        return replace(record, failures=1, deaths=(now,))
    recent = tuple(at for at in record.deaths if now - at < settings.give_up_window_seconds)
    return replace(record, failures=record.failures + 1, deaths=(*recent, now))


def is_to_give_up(record: Record, settings: Settings) -> bool:
    """Whether it died too often, as counted by `after_death`."""
    return len(record.deaths) >= settings.give_up_deaths


def shown_state(record: Record, now: float, settings: Settings) -> str:
    """The one word for people. Busy is not hung: a call may run for hours."""
    life = record.life
    if record.identity is not None:
        if life.process_state in ("stopped", "zombie"):
            return life.process_state
        stuck_since = life.uninterruptible_since
        if stuck_since is not None and now - stuck_since >= _UNINTERRUPTIBLE_SECONDS:
            return "uninterruptible"
    if record.state is State.SWEEPING:
        return State.STOPPING.value
    if record.state is not State.READY:
        return record.state.value
    if life.busy is not None:
        return "busy"
    if life.pinged_at is None or now - life.pinged_at < settings.unresponsive_after_seconds:
        return "ready"
    if life.sample is not None and life.sample.cpu_percent >= _COMPUTING_CPU_PERCENT:
        return "busy"
    return "unresponsive"


def describe_exit(
    exit_code: int | None, signal_name: str | None, is_out_of_memory: bool = False
) -> str:
    """How a process went, in words."""
    if is_out_of_memory:
        return f"killed by {signal_name}, most likely by the system for want of memory"
    if signal_name is not None:
        return f"killed by {signal_name}"
    if exit_code is not None:
        return f"exited with code {exit_code}"
    return "ended (how is not known: an earlier supervisor had started it)"
