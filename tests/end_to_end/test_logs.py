"""A daemon that prints as fast as it can."""

import time
from pathlib import Path

import spawny
from spawny.paths import locate
from tests.end_to_end.processes import eventually

# A hundred megabytes a second at most, lest a disk that is small fills.
FLOOD = """
import os, select, threading
def flood():
    while True:
        os.write(1, b"x" * (1024 * 1024 - 1) + b"\\n")
        select.select([], [], [], 0.01)
def begin():
    threading.Thread(target=flood, daemon=True).start()
"""


def test_a_log_that_grows_fast_is_cut_often(home: Path) -> None:
    """Ten times in less than that many of the regular looks."""
    paths = locate()
    paths.config.mkdir(parents=True)
    figures = "health_interval_seconds = 1\nlog_bytes = 1_000_000\n"
    paths.config_file.write_text(f"[supervisor]\n{figures}")
    spawny.run_script(FLOOD, name="loud", output="log").begin()
    began = time.monotonic()
    cut = f"rotated {paths.log_file('loud')}\n"
    assert eventually(lambda: paths.supervisor_log.read_text().count(cut) >= 10)
    assert time.monotonic() - began < 8
    spawny.connect().stop("loud")
