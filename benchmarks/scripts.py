"""What a script pays for spawny: attaching to what runs, and starting what does not."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
# What is more in a start than the start of the process that there has to be.
START_GOAL_MILLISECONDS = 10.0

INTERPRETER = "python -c pass"
ATTACH = "import spawny; spawny.attach('served').answer()"
START = "import spawny; spawny.run_script('def answer(): return 42', logger=quiet).answer()"
QUIET = "import logging; quiet = logging.Logger('quiet')"
ANSWER = "def answer():\n    return 42"

# The interpreter of a daemon, up to where it has imported what every daemon needs.
KERNEL = str(Path(spawny.__file__).with_name("kernel"))
CHILD = f"""
import sys
sys.path.insert(0, {KERNEL!r})
import boot
boot.load_kernel({KERNEL!r})
print(flush=True)
"""

# What a script that attaches waits for, one after the other.
STEPS = ("import spawny", "attach()", "the first call", "the second call")
STEPPING = """
import json, time
marks = [time.perf_counter()]
import spawny
marks.append(time.perf_counter())
module = spawny.attach("served")
marks.append(time.perf_counter())
module.answer()
marks.append(time.perf_counter())
module.answer()
marks.append(time.perf_counter())
print(json.dumps([1000 * (b - a) for a, b in zip(marks, marks[1:])]))
"""

METHOD = (
    "Medians of {rounds} rounds. Whole scripts from start to end are told as what they take on top"
    " of an interpreter that does nothing. A cold start is one without a zygote. A daemon's own"
    " start is that of its interpreter, from the execution to where it has imported the kernel."
)


def measure(rounds: int) -> Section:
    """Milliseconds of whole scripts, of their steps, and of starts within a running one."""
    steps: list[list[float]] = []
    with private_home() as home:
        # A start is to be a cold one; warm.py has the others.
        (home / "config").mkdir()
        (home / "config" / "config.toml").write_text("[zygotes]\nenabled = false\n")
        served = spawny.run_script(ANSWER, name="served")
        times = interleave(
            {
                INTERPRETER: lambda: run_milliseconds(python("-c", "pass")),
                "import": lambda: run_milliseconds(python("-c", "import spawny")),
                "attach": lambda: run_milliseconds(python("-c", ATTACH)),
                "run": lambda: run_milliseconds(python("-c", f"{QUIET}; {START}")),
                "steps": lambda: _steps(steps),
                "child": _child_milliseconds,
                "start": _start_milliseconds,
                "attach here": _attach_milliseconds,
            },
            rounds,
        )
        served.terminate_daemon()
    alone = interleave(
        {"supervisor": _alone(spawny.connect), "both": _alone(_run_and_answer)}, max(3, rounds // 3)
    )

    def on_top(what: str) -> float:
        return median_difference(times[what], times[INTERPRETER])

    return Section(
        "Scripts",
        METHOD.format(rounds=rounds),
        (
            Figure(INTERPRETER, statistics.median(times[INTERPRETER]), "ms"),
            Figure("script: import spawny", on_top("import"), "ms", note="on top"),
            Figure(
                "script: import, attach, first answer",
                on_top("attach"),
                "ms",
                limit=ATTACH_GOAL_MILLISECONDS,
                note="on top",
            ),
            Figure("script: import, run_script, first answer", on_top("run"), "ms", note="on top"),
            *(
                Figure(f"in a script that attaches: {what}", statistics.median(found), "ms")
                for what, found in zip(STEPS, zip(*steps, strict=True), strict=True)
            ),
            Figure(
                "in a running script: attach, first answer",
                statistics.median(times["attach here"]),
                "ms",
            ),
            Figure(
                "in a running script: cold run_script, first answer",
                statistics.median(times["start"]),
                "ms",
            ),
            Figure("a daemon's own start", statistics.median(times["child"]), "ms"),
            Figure(
                "cold run_script, on top of the daemon's own start",
                median_difference(times["start"], times["child"]),
                "ms",
                limit=START_GOAL_MILLISECONDS,
            ),
            Figure("the supervisor's start", statistics.median(alone["supervisor"]), "ms"),
            Figure(
                "in a running script: cold run_script without a supervisor",
                statistics.median(alone["both"]),
                "ms",
            ),
        ),
    )


def _steps(found: list[list[float]]) -> float:
    output = subprocess.run(python("-c", STEPPING), check=True, stdout=subprocess.PIPE).stdout
    found.append(json.loads(output))
    return sum(found[-1])


def _child_milliseconds() -> float:
    began = time.perf_counter_ns()
    with subprocess.Popen(python("-c", CHILD), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        return (time.perf_counter_ns() - began) / 1e6


def _start_milliseconds() -> float:
    began = time.perf_counter_ns()
    module = spawny.run_script(ANSWER, python_exe=sys.executable)
    module.answer()
    took = (time.perf_counter_ns() - began) / 1e6
    module.terminate_daemon()
    return took


def _attach_milliseconds() -> float:
    began = time.perf_counter_ns()
    spawny.attach("served").answer()
    return (time.perf_counter_ns() - began) / 1e6


def _run_and_answer() -> None:
    spawny.run_script(ANSWER).answer()


def _alone(action: Callable[[], object]) -> Callable[[], float]:
    """How long it takes where nothing runs yet."""

    def run() -> float:
        with private_home():
            began = time.perf_counter_ns()
            action()
            return (time.perf_counter_ns() - began) / 1e6

    return run
