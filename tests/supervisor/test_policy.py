"""The rules of thumb, one by one."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny.settings import Settings
from spawny.supervisor.lifecycle import State
from spawny.supervisor.policy import (
    after_death,
    backoff_seconds,
    describe_exit,
    is_to_give_up,
    is_to_restart,
    shown_state,
)
from spawny.supervisor.records import Cause, Life, Record
from spawny.supervisor.values import Busy, Identity
from tests.supervisor.world import PYTHON, definition, sample

SETTINGS = Settings()
NOW = 1000.0


def record(state: State = State.READY, restart: Any = "never", **life: Any) -> Record:
    return Record(
        definition(restart=restart),
        PYTHON,
        state,
        replace(Life(began_at=NOW - 50), **life),
        identity=Identity("boot", 7, 70),
    )


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_the_backoff_lies_between_half_of_it_and_all(failures: int, jitter: float) -> None:
    """min(cap, base * 2^n) * U(0.5, 1), for any number of failures."""
    whole = min(30.0, 0.25 * 2.0 ** min(max(failures - 1, 0), 100))
    assert whole / 2 <= backoff_seconds(failures, jitter, SETTINGS) <= whole


def test_the_backoff_doubles() -> None:
    """A quarter of a second after the first death, twice that after the second."""
    assert [backoff_seconds(n, 1.0, SETTINGS) for n in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("restart", "ending", "expected"),
    [
        ("never", {"exit_code": 1}, False),
        ("never", {"signal_name": "SIGKILL"}, False),
        ("on-failure", {"exit_code": 1}, True),
        ("on-failure", {"signal_name": "SIGSEGV"}, True),
        ("on-failure", {"exit_code": 0}, False),
        ("on-failure", {"exit_code": 0, "cause": Cause.FAILURE}, True),
        ("on-failure", {"exit_code": 1, "cause": Cause.DECIDED}, False),
        ("on-failure", {}, True),  # nobody knows how it ended
        ("always", {"exit_code": 0}, True),
        ("always", {"exit_code": 0, "cause": Cause.DECIDED}, False),
    ],
)
def test_who_is_restarted(restart: str, ending: dict[str, Any], expected: bool) -> None:
    """The policy tells failures from other ends, and never overrules a decision."""
    assert is_to_restart(record(restart=restart, ready_at=NOW - 40, **ending)) is expected


def test_a_first_start_that_fails_is_not_retried() -> None:
    """Whoever asked for it is told; a restart by policy that fails is tried again."""
    failed = record(restart="always", exit_code=1)
    assert not is_to_restart(failed)
    assert is_to_restart(failed.lived(is_automatic=True))


def test_five_deaths_in_a_minute_are_enough() -> None:
    """The fifth within the window gives up; spread out they never do."""
    quick = slow = record(ready_at=None)
    for number in range(5):
        assert not is_to_give_up(quick, SETTINGS)
        quick = after_death(quick, NOW + number, SETTINGS)
        slow = after_death(slow, NOW + 20 * number, SETTINGS)
    assert is_to_give_up(quick, SETTINGS)
    assert not is_to_give_up(slow, SETTINGS)
    assert quick.failures == slow.failures == 5


def test_a_healthy_stretch_forgets_earlier_deaths() -> None:
    """After 30 s of service the next death counts as the first."""
    tired = record(ready_at=NOW - 30).changed(failures=4, deaths=(NOW - 40, NOW - 39))
    assert after_death(tired, NOW, SETTINGS).failures == 1
    assert after_death(tired, NOW, SETTINGS).deaths == (NOW,)
    brief = tired.lived(ready_at=NOW - 29)
    assert after_death(brief, NOW, SETTINGS).failures == 5


BUSY = Busy("fit()", 4711, 3600.0)


@pytest.mark.parametrize(
    ("state", "life", "expected"),
    [
        (State.STARTING, {}, "starting"),
        (State.LOADING, {}, "loading"),
        (State.SWEEPING, {}, "stopping"),
        (State.READY, {}, "ready"),
        (State.READY, {"busy": BUSY}, "busy"),
        (State.READY, {"busy": BUSY, "pinged_at": NOW - 3600}, "busy"),
        (State.READY, {"pinged_at": NOW - 14}, "ready"),
        (State.READY, {"pinged_at": NOW - 16}, "unresponsive"),
        (State.READY, {"pinged_at": NOW - 16, "sample": sample()}, "unresponsive"),
        # It computes, in C code that lets no other thread of it run.
        (State.READY, {"pinged_at": NOW - 16, "sample": sample(cpu_percent=99.0)}, "busy"),
        (State.READY, {"busy": BUSY, "process_state": "stopped"}, "stopped"),
        (State.UNLINKED, {"process_state": "stopped"}, "stopped"),
        (State.READY, {"process_state": "zombie"}, "zombie"),
        (State.READY, {"uninterruptible_since": NOW - 0.5}, "ready"),
        (State.READY, {"busy": BUSY, "uninterruptible_since": NOW - 1}, "uninterruptible"),
    ],
)
def test_what_is_shown(state: State, life: dict[str, Any], expected: str) -> None:
    """Dead, stopped, busy and unresponsive are different things."""
    assert shown_state(record(state, **life), NOW, SETTINGS) == expected


def test_a_dead_process_is_not_shown_as_stopped() -> None:
    """What was last seen of a process says nothing once it is gone."""
    waiting = record(State.WAITING, process_state="stopped").changed(identity=None)
    assert shown_state(waiting, NOW, SETTINGS) == "waiting"


def test_exits_in_words() -> None:
    """A signal, a code, or neither."""
    assert describe_exit(None, "SIGKILL") == "killed by SIGKILL"
    assert describe_exit(3, None) == "exited with code 3"
    assert "not known" in describe_exit(None, None)
