"""What a script pays for spawny: attaching to what runs, and starting what does not."""

from __future__ import annotations

import statistics
import sys
import time

from harness import (
    Figure,
    Section,
    interleave,
    median_difference,
    private_home,
    python,
    run_milliseconds,
)

import spawny

# From the start of a fresh interpreter to its end, over an interpreter that does nothing.
ATTACH_GOAL_MILLISECONDS = 25.0

ATTACH = "import spawny; spawny.attach('served').answer()"

INTERPRETER = "python -c pass"


def measure(rounds: int) -> Section:
    """Milliseconds of whole scripts, and of a start within one."""
    with private_home() as home:
        # A start is to be a cold one; warm.py has the others.
        (home / "config").mkdir()
        (home / "config" / "config.toml").write_text("[zygotes]\nenabled = false\n")
        served = spawny.run_script("def answer():\n    return 42", name="served")
        times = interleave(
            {
                INTERPRETER: lambda: run_milliseconds(python("-c", "pass")),
                "import": lambda: run_milliseconds(python("-c", "import spawny")),
                "attach": lambda: run_milliseconds(python("-c", ATTACH)),
                "start": _start_milliseconds,
                "attach here": _attach_milliseconds,
            },
            rounds,
        )
        served.terminate_daemon()
    bare = times[INTERPRETER]
    return Section(
        "Scripts",
        f"Whole processes from start to end, and starts within a running one, {rounds} rounds.",
        (
            Figure(INTERPRETER, statistics.median(bare), "ms"),
            Figure("import spawny, on top of it", median_difference(times["import"], bare), "ms"),
            Figure(
                "fresh script: import, attach, first answer, exit; on top of it",
                median_difference(times["attach"], bare),
                "ms",
                limit=ATTACH_GOAL_MILLISECONDS,
            ),
            Figure(
                "attach and first answer in a running script",
                statistics.median(times["attach here"]),
                "ms",
            ),
            Figure(
                "cold run_script until its first answer, supervisor running",
                statistics.median(times["start"]),
                "ms",
                note=f"{median_difference(times['start'], bare):+.1f} ms to {INTERPRETER}",
            ),
        ),
    )


def _start_milliseconds() -> float:
    began = time.perf_counter_ns()
    module = spawny.run_script("def answer():\n    return 42", python_exe=sys.executable)
    module.answer()
    took = (time.perf_counter_ns() - began) / 1e6
    module.terminate_daemon()
    return took


def _attach_milliseconds() -> float:
    began = time.perf_counter_ns()
    spawny.attach("served").answer()
    return (time.perf_counter_ns() - began) / 1e6
