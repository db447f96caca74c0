"""How a supervisor becomes one of another version, in place: what is decided about it.

First the successor is tried. Then new work is held, until all that must not be done twice is done;
what may be done twice is asked again by its client. Then the process becomes its successor, which
gets what the journal does not hold. If any of this fails, the held work is taken up, and nobody has
noticed but the one who asked.
"""

from __future__ import annotations

from dataclasses import replace

from .. import control
from . import actions, once, warmth
from .events import (
    DeclaredDue,
    Event,
    HandedOver,
    StartRequested,
    SuccessionFailed,
    SuccessorChecked,
)
from .fleet import Fleet, Upgrading
from .lifecycle import ALIVE, Input, State
from .records import Record
from .values import Caller

# An interpreter starts and imports within a second; a cold disk under load takes many times that.
CHECK_SECONDS = 30.0

# Starts and listings that are under way get so long to be answered; their clients may ask again.
SOFT_SECONDS = 1.0

# A stop takes some seconds where a daemon does not want to end. Clients whose requests are held
# meanwhile give up after 10 s of silence.
HARD_SECONDS = 5.0


def request(fleet: Fleet, caller: Caller, asked: control.Upgrade, now: float) -> None:
    """Try the successor first."""
    if fleet.upgrading is not None or fleet.shutting_down:
        doing = "is shutting down" if fleet.shutting_down else "is being upgraded already"
        fleet.refuse(caller, "SupervisorUnavailable", f"the supervisor {doing}")
        return
    fleet.upgrading = Upgrading(caller, asked.python, asked.python_path, now + CHECK_SECONDS)
    fleet.do(actions.CheckSuccessor(asked.python, asked.python_path))


def on_checked(fleet: Fleet, event: SuccessorChecked, now: float) -> None:
    upgrading = fleet.upgrading
    if upgrading is None or upgrading.is_draining:
        return  # it was given up meanwhile
    if event.problem:
        _give_up(fleet, upgrading, f"{upgrading.python} cannot take over: {event.problem}")
        return
    warmth.end_all(fleet)
    fleet.upgrading = replace(
        upgrading,
        version=event.version,
        is_draining=True,
        soft_until=now + SOFT_SECONDS,
        deadline=now + HARD_SECONDS,
    )


def is_held(fleet: Fleet, event: Event) -> bool:
    """Whether this is for the successor, or for later."""
    if fleet.upgrading is None or not fleet.upgrading.is_draining:
        return False
    return isinstance(event, StartRequested) or once.is_held(fleet, event)


def settle(fleet: Fleet, now: float) -> None:
    """Hand over as soon as nothing would be lost; give up when that takes too long."""
    upgrading = fleet.upgrading
    if upgrading is None or upgrading.is_handed_over:
        return
    if not upgrading.is_draining:
        if now >= upgrading.deadline:
            fleet.do(actions.AbandonCheck())
            slow = f"{upgrading.python} was not ready within {CHECK_SECONDS:g} s"
            _give_up(fleet, upgrading, slow)
    elif not _must_wait(fleet) and (now >= upgrading.soft_until or not _has_waiters(fleet)):
        _hand_over(fleet, upgrading)
    elif now >= upgrading.deadline:
        _give_up(
            fleet,
            upgrading,
            f"a stop, restart or interrupt has not ended within {HARD_SECONDS:g} s; the supervisor"
            " serves on as it was: look at spawny ps, then ask again",
        )


def next_deadline(fleet: Fleet) -> float | None:
    """When `settle` has something to decide though nothing has happened."""
    upgrading = fleet.upgrading
    if upgrading is None or upgrading.is_handed_over:
        return None
    if upgrading.is_draining and not _must_wait(fleet):
        return upgrading.soft_until
    return upgrading.deadline


def _must_wait(fleet: Fleet) -> bool:
    """Whether something is under way that would be lost."""
    is_replaced = any(
        isinstance(due, DeclaredDue) for each in fleet.records.values() for due in each.deferred
    )
    return bool(fleet.awaited) or is_replaced or warmth.is_forking(fleet)


def _has_waiters(fleet: Fleet) -> bool:
    """Whether anybody waits for an answer that comes soon, or a daemon is about to say that it
    makes room for its successor: said while nobody listens, that would be an end for good."""
    records = fleet.records.values()
    is_starting = any(each.waiters and each.state is not State.WAITING for each in records)
    is_leaving = any(each.life.recycle and each.state is State.READY for each in records)
    return is_starting or is_leaving or bool(fleet.listings)


def _hand_over(fleet: Fleet, upgrading: Upgrading) -> None:
    fleet.upgrading = replace(upgrading, is_handed_over=True)
    change = f"spawny {fleet.welcome.version} becomes {upgrading.version}"
    fleet.announce("upgrading", change)
    fleet.reply(upgrading.caller, control.Done(change))
    # Connections end here: of each record there goes what outlives them.
    records = tuple(
        each.changed(link=None, waiters=(), stoppers=(), deferred=())
        for each in (*fleet.ended.values(), *fleet.records.values())
    )
    answered = dict(fleet.answered)
    fleet.do(actions.HandOver(upgrading.python, upgrading.python_path, records, answered))


def on_succession_failed(fleet: Fleet, event: SuccessionFailed, now: float) -> None:
    """It could be tried, and then not be executed: the one who asked has had its answer."""
    fleet.upgrading = None
    fleet.announce("upgraded", f"it failed: {event.problem}; spawny {fleet.welcome.version} serves")
    _take_up_held(fleet)


def _give_up(fleet: Fleet, upgrading: Upgrading, problem: str) -> None:
    fleet.upgrading = None
    fleet.refuse(upgrading.caller, "UpgradeFailed", problem)
    _take_up_held(fleet)


def _take_up_held(fleet: Fleet) -> None:
    held, fleet.held = fleet.held, []
    fleet.again.extend(held)


# --- in the successor -----------------------------------------------------------------------------


def on_handed_over(fleet: Fleet, event: HandedOver, now: float) -> None:
    """Take up where the one before has left off."""
    fleet.knows_earlier = True
    fleet.answered.update(event.answered)
    for record in event.records:
        _take_up(fleet, record, now)


def _take_up(fleet: Fleet, record: Record, now: float) -> None:
    record = record.lived(pinged_at=None, zygote=0)  # those have ended
    if record.request.definition:  # the one before kept it in memory
        fleet.do(actions.KeepDefinition(record.request))
        record = record.changed(request=replace(record.request, definition=b""))
    if record.state in ALIVE and record.identity is not None:
        fleet.do(actions.WatchProcess(record.name, record.identity))
        record = record.moved(Input.LINK_LOST)
        if record.state is State.UNLINKED:
            record = record.changed(deadline=now + fleet.settings.adoption_seconds)
    elif record.state is State.SWEEPING and record.identity is not None:
        mark = record.request.mark
        fleet.do(actions.SweepSession(record.name, record.identity, "SIGTERM", mark))
    fleet.put(record)
