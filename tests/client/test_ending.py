"""Waiting for the end of a process, with the system's help and without."""

import os
import subprocess
import sys

import pytest

from spawny.client import ending
from spawny.client.ending import wait_gone


@pytest.fixture(params=["pidfd", "looking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: the better one, and the one for systems that lack it."""
    if request.param == "looking":
        monkeypatch.setattr(ending, "_pidfd", lambda pid: None)
    return str(request.param)


def test_a_process_that_ends(way: str) -> None:
    """False while it runs, True once it has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with wait_gone(process.pid) as wait:
        assert not wait(0)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert wait(20)


def test_a_process_that_is_gone_already(way: str) -> None:
    """It has ended; so has the one of which nothing is known."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for pid in (process.pid, 0):
        with wait_gone(pid) as wait:
            assert wait(0)


def test_no_descriptor_is_left(way: str) -> None:
    """Whatever was opened for the waiting is closed."""
    before = len(os.listdir("/proc/self/fd"))
    with wait_gone(os.getpid()) as wait:
        assert not wait(0)
    assert len(os.listdir("/proc/self/fd")) == before
