"""A look at real processes."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from spawny.supervisor import health, proctable
from spawny.supervisor.health import Health
from spawny.supervisor.values import Identity

BUSY = "print(flush=True)\nwhile True: pass"


def me() -> Identity:
    identity = proctable.identify(os.getpid())
    assert identity is not None
    return identity


def test_a_look_at_this_process() -> None:
    """Its memory, plausible, and that it does nothing unusual."""
    look = Health().sample([("me", me())]).samples["me"]
    assert 5_000_000 < look.rss_bytes < 5_000_000_000
    assert look.state == "other"


def test_proc_and_psutil_tell_the_same() -> None:
    """Whichever the system has."""
    proc, portable = health.usage_from_proc(me()), health.usage_from_psutil(me())
    assert proc and portable
    assert proc.state == portable.state == "other"
    assert abs(proc.cpu_seconds - portable.cpu_seconds) < 1
    assert abs(proc.rss_bytes - portable.rss_bytes) < 10_000_000


@pytest.mark.parametrize("has_proc", [True, False])
def test_processes_that_are_gone_are_left_out(has_proc: bool) -> None:
    """So are those whose pid is another's now."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    gone = proctable.identify(child.pid)
    child.wait()
    assert gone is not None
    other = replace(me(), start_ticks=1)
    samples = (
        Health(has_proc=has_proc).sample([("gone", gone), ("other", other), ("me", me())]).samples
    )
    assert set(samples) == {"me"}


def test_cpu_time_is_counted_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole life at first, then since the last look; a brief stretch tells nothing."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity = proctable.identify(child.pid)
        assert identity is not None
        looks = Health()
        first = looks.sample([("x", identity)]).samples["x"]
        brief = looks.sample([("x", identity)]).samples["x"]
        assert brief.cpu_percent == first.cpu_percent
        monkeypatch.setattr(health, "_CPU_STRETCH_SECONDS", 0.0)
        # As long as it takes, on a busy machine too, until it has had a tick of CPU time.
        while looks.sample([("x", identity)]).samples["x"].cpu_percent <= 0:
            pass
        child.kill()
