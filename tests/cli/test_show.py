"""Sizes, durations and tables for people."""

import pytest

from spawny.cli import ps, show
from spawny.control import DaemonStatus


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (31_400_000, "31.4 MB"),
        (2_000_000_000, "2.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes(size_bytes, text):
    """Four digits at most, up to terabytes."""
    assert show.size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (11_100, "3 h 5 min"),
        (86_400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_durations(seconds, text):
    """Two units at most, rounded down but for seconds."""
    assert show.duration(seconds) == text


def test_a_table_is_aligned_and_cut_to_the_terminal():
    """Numbers to the right; only the last column is cut, and never to nothing."""
    rows = [["a", "1", "short"], ["longer", "1000", "x" * 50]]
    wide = show.table(("N", "#", "WHAT"), rows, numbers={"#"})
    assert wide.splitlines() == [
        "N          #  WHAT",
        "a          1  short",
        "longer  1000  " + "x" * 50,
    ]
    cut = show.table(("N", "#", "WHAT"), rows, numbers={"#"}, width=34)
    assert cut.splitlines()[2] == "longer  1000  " + "x" * 19 + "…"
    assert len(show.table(("N", "#", "WHAT"), rows, width=5).splitlines()[2]) == 14 + 16


def status(**changes: object) -> DaemonStatus:
    """A daemon's status with some fields changed."""
    fields: dict[str, object] = {
        "name": "etl",
        "state": "ready",
        "pid": 7,
        "python": "/usr/bin/python3",
        "uptime_seconds": 60.0,
        "rss_bytes": 10**7,
        "cpu_percent": 0.0,
        "clients": 1,
        "calls": 2,
        "restarts": 0,
        "summary": "script etl.py",
    }
    return DaemonStatus(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "script etl.py"),
        ({"restarts": 1}, "script etl.py, restarted once"),
        ({"restarts": 2}, "script etl.py, restarted 2 times"),
        (
            {"state": "busy", "busy_call": "fit()", "busy_seconds": 75.0, "busy_client_pid": 9},
            "fit() for 1 min 15 s, called by 9",
        ),
        ({"state": "failed", "pid": None, "reason": "died 5 times"}, "died 5 times"),
    ],
)
def test_the_last_column_says_what_matters_most(changes, what):
    """What a busy daemon does, what is wrong with an unwell one, else what it runs."""
    assert ps.listing([status(**changes)]).splitlines()[1].endswith(f"  {what}")


def test_a_daemon_without_a_process_has_dashes_for_its_figures():
    """Where no process is, there is no uptime, size or load to show."""
    line = ps.listing([status(state="waiting", pid=None)]).splitlines()[1]
    assert line.split()[:7] == ["etl", "waiting", "-", "/usr/bin/python3", "-", "-", "-"]
