"""`spawny status`, `events` and `metrics`."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

import spawny
from spawny.cli import main, metrics, status
from spawny.cli.exits import INTERRUPTED
from spawny.control import DaemonStatus, ZygoteStatus
from tests.interpreters import Interpreter

ETL = DaemonStatus(
    name="etl",
    state="busy",
    pid=77,
    python="/usr/bin/python3",
    uptime_seconds=75,
    rss_bytes=31_400_000,
    cpu_percent=99.5,
    clients=2,
    calls=120,
    restarts=1,
    version="cpython 3.11.7",
    summary="script etl.py",
    busy_seconds=3.0,
    busy_call="fit()",
    busy_client_pid=9,
    restart="always",
    log="/logs/etl.log",
    calls_failed=4,
    call_p50_seconds=31e-6,
    call_p90_seconds=0.0017,
    call_p99_seconds=12.0,
)
GONE = replace(
    ETL, name="gone", state="ended", pid=None, busy_call=None, exit_code=3, reason="it fell over"
)

COUNTED = """
import time
def fast(): pass
def slow(): time.sleep(0.2)
def fail(): raise ValueError("no")
"""


def test_the_kernel_counts_calls(home, interpreter: Interpreter) -> None:
    """How many raised and how long they took, on every interpreter."""
    proxy = spawny.run_script(COUNTED, python_exe=interpreter.path, name="counted")
    for _ in range(20):
        proxy.fast()
    proxy.slow()
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            proxy.fail()
    supervisor = spawny.connect()
    found = supervisor.status("counted")
    assert found.calls_failed == 3
    assert 0 < found.call_p50_seconds <= found.call_p90_seconds <= found.call_p99_seconds
    assert found.call_p50_seconds < 0.1
    assert 0.18 <= found.call_p99_seconds < 2
    supervisor.stop("counted")


def test_status_shows_all_about_one(home, capsys) -> None:
    """For people a line each, for programs the keys of a listing; after its end too."""
    spawny.run_script(COUNTED, name="one").fast()
    assert main(["status", "one"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^state     ready, pid \d+, for ", shown, re.MULTILINE)
    assert re.search(r"^calls     \d+, of which 0 raised; 50 % within ", shown, re.MULTILINE)
    assert main(["status", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calls_failed"] == 0
    spawny.connect().stop("one")
    assert main(["status", "one"]) == 0
    assert "ended     exit code 0" in capsys.readouterr().out
    assert main(["status", "none"]) == 3


def test_status_without_a_name_shows_the_supervisor(home, capsys) -> None:
    """With its zygotes; and that there is none does not start one."""
    assert main(["status"]) == 0
    assert "no supervisor runs" in capsys.readouterr().out
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) is None
    pid = spawny.connect().version().pid
    assert main(["status"]) == 0
    assert f"pid {pid}, started when it was needed" in (shown := capsys.readouterr().out)
    assert "no zygotes" in shown
    spawny.run_script("x = 1", name="one", preload=["json"])
    assert main(["status"]) == 0
    assert re.search(r"^ready .* 1        1 .* json$", capsys.readouterr().out, re.MULTILINE)
    spawny.connect().stop("one")
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pid"], found["zygotes"][0]["preload"]) == (pid, ["json"])


def test_a_kind_that_cannot_be_forked_is_shown_with_its_reason() -> None:
    """It has no process."""
    unfit = ZygoteStatus("/usr/bin/python3", ["a", "b"], "unfit", reason="threads run")
    *_, row = status.zygote_table([unfit]).splitlines()
    assert row.split() == ["unfit", *"------", "/usr/bin/python3", "a", "b", "threads", "run"]


def test_what_status_says() -> None:
    """Only what there is to say."""
    rows = dict(status.rows(ETL))
    assert rows["state"] == "busy, pid 77, for 1 min 15 s"
    assert rows["busy"] == "fit() for 3.0 s, called by 9"
    assert rows["calls"] == (
        "120, of which 4 raised; 50 % within 31 us, 90 % within 1.7 ms, 99 % within 12 s"
    )
    assert (rows["ended"], rows["reason"]) == ("", "")
    rows = dict(status.rows(GONE))
    assert (rows["ended"], rows["reason"], rows["busy"]) == ("exit code 3", "it fell over", "")
    killed = replace(GONE, signal_name="SIGKILL", call_p50_seconds=None)
    assert dict(status.rows(killed))["ended"] == "killed by SIGKILL"
    assert dict(status.rows(killed))["calls"] == "120, of which 4 raised"


def test_events_are_shown_as_they_happen(home) -> None:
    """A line each, at once, until Ctrl-C."""
    spawny.run_script("import os", name="other")
    watcher = subprocess.Popen(
        [sys.executable, "-m", "spawny.cli", "events", "--json", "etl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    supervisor = spawny.connect()
    # An upgrade is shown whatever the names, so that it tells when the watcher is there.
    while not select_line(watcher):
        supervisor.upgrade()
    spawny.connect().stop("other")
    etl = spawny.run_script("import os", name="etl")
    with pytest.raises(spawny.DaemonDied):
        etl.os._exit(3)
    seen = []
    while "ended" not in [each["kind"] for each in seen]:
        event = json.loads(watcher.stdout.readline())
        assert event["name"] in ("etl", "")
        seen += [event] if event["name"] else []
    assert [each["kind"] for each in seen] == ["started", "ready", "died", "ended"]
    assert seen[2]["detail"].startswith("exited with code 3")
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(30) == INTERRUPTED
    assert watcher.stderr.read() == ""
    watcher.stdout.close()
    watcher.stderr.close()


def test_events_end_with_the_supervisor(home) -> None:
    """That is all that there was to show, and no error."""
    supervisor = spawny.connect()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "spawny.cli", "events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not select_line(watcher):
        supervisor.upgrade()
    supervisor.shutdown()
    _, said = watcher.communicate(timeout=30)
    assert watcher.returncode == 0
    assert "the supervisor" in said


def select_line(watcher) -> bool:
    """Whether it has shown something, waited for a moment."""
    import select

    return bool(select.select([watcher.stdout], [], [], 1.0)[0])


def test_events_for_people(home) -> None:
    """The time, whose it is, what, and why."""
    from spawny.cli.events import line
    from spawny.control import Event

    assert line(Event("died", "etl", 0.0, "killed", 7))[8:] == "  etl (pid 7) died: killed"
    assert line(Event("reloaded", "", 0.0))[8:] == "  the supervisor reloaded"


# --- OpenMetrics ----------------------------------------------------------------------------------

METADATA = re.compile(r"# (TYPE|UNIT|HELP) ([a-z_]+) (.+)")
SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[\w.-]+"(?:,[a-z]+="[\w.-]+")*\})? (\S+)')
SUFFIXES = {"gauge": ("",), "counter": ("_total",), "summary": ("", "_count")}


def parse(page: str) -> dict[str, dict[str, float]]:
    """The samples of each family; fails on whatever OpenMetrics does not allow."""
    assert page.endswith("\n# EOF\n")
    families: dict[str, dict[str, str]] = {}
    samples: dict[str, dict[str, float]] = {}
    current = ""
    for line in page.splitlines()[:-1]:
        if match := METADATA.fullmatch(line):
            word, family, text = match.groups()
            if family != current:
                assert family not in families, "the lines of a family stand together"
                current, families[family], samples[family] = family, {}, {}
            assert word not in families[family]
            families[family][word] = text
            assert not samples[family], "metadata come first"
            assert word != "UNIT" or family.endswith(f"_{text}")
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        allowed = SUFFIXES[families[current]["TYPE"]]
        assert name in [current + suffix for suffix in allowed], line
        key = name + (labels or "")
        assert key not in samples[current]
        samples[current][key] = float(value)
    assert all(each.keys() >= {"TYPE", "HELP"} for each in families.values())
    return samples


def test_the_page_is_open_metrics() -> None:
    """With each figure under its name, unit and daemon."""
    found = parse(metrics.page([ETL, replace(GONE, call_p50_seconds=None)], is_up=True))
    assert found["spawny_up"] == {"spawny_up": 1}
    assert found["spawny_daemon_calls"]['spawny_daemon_calls_total{name="etl"}'] == 120
    assert found["spawny_daemon_cpu_ratio"]['spawny_daemon_cpu_ratio{name="etl"}'] == 0.995
    assert found["spawny_daemon_state"] == {
        'spawny_daemon_state{name="etl",state="busy"}': 1,
        'spawny_daemon_state{name="gone",state="ended"}': 1,
    }
    times = found["spawny_daemon_call_seconds"]
    assert times['spawny_daemon_call_seconds{name="etl",quantile="0.9"}'] == 0.0017
    assert times['spawny_daemon_call_seconds_count{name="gone"}'] == 120
    assert len(times) == 7


def test_metrics_of_what_runs(home, capsys) -> None:
    """Without a supervisor the page says so, and none is started."""
    assert main(["metrics"]) == 0
    assert parse(capsys.readouterr().out)["spawny_up"] == {"spawny_up": 0}
    spawny.run_script("pass", name="one")
    assert main(["metrics"]) == 0
    found = parse(capsys.readouterr().out)
    assert found["spawny_daemon_rss_bytes"]['spawny_daemon_rss_bytes{name="one"}'] > 1e6
    spawny.connect().stop("one")
