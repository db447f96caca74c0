"""Has spawny become slow? `make guard`: less than a minute, for CI.

What is judged takes turns with floors of our own, so a busy machine slows both. A regression that
matters (a lost spin, a second round trip, a hand-over between threads, a large import) doubles
something in every round. A busy machine does so in some: where an end that spins shares its core, a
call takes a time slice. So the fastest round of each is judged; what is too slow is measured anew,
and only what is so each time fails.
"""

from __future__ import annotations

import sys
import time

import calls
import report
import scripts
from harness import (
    Figure,
    Section,
    interleave,
    private_home,
    python,
    run_milliseconds,
)

import spawny

ATTEMPTS = 3
ROUNDS = 7

# Two ends that look before they sleep and pickle a tuple are the floor; spawny does more for a
# call, and takes 1.0 to 1.8 times as long, with or without a load.
CALL_LIMIT = 2.6
# As a whole, to an interpreter that does nothing: it takes three times as long.
ATTACH_LIMIT = 6.0

METHOD = "Of the fastest rounds."


def main() -> int:
    """1 when something was too slow each time."""
    began = time.monotonic()
    slow: set[str] = set()
    for attempt in range(ATTEMPTS):
        section = _measure()
        print(report.as_text(section), end="\n\n", flush=True)
        now = {each.what for each in section.figures if each.is_met is False}
        slow = slow & now if attempt else now
        if not slow:
            break
    for what in sorted(slow):
        print(f"TOO SLOW, {ATTEMPTS} times: {what}", file=sys.stderr)
    print(f"{'failed' if slow else 'fine'}, after {time.monotonic() - began:.0f} s")
    return 1 if slow else 0


def _measure() -> Section:
    of_calls = [_of_calls(section) for section in calls.measure(ROUNDS, has_libraries=False)]
    with private_home():
        served = spawny.run_script(scripts.ANSWER, name="served")
        times = interleave(
            {
                command: lambda command=command: run_milliseconds(python("-c", command))
                for command in ("pass", scripts.ATTACH)
            },
            ROUNDS,
        )
        served.terminate_daemon()
    ratio = min(times[scripts.ATTACH]) / min(times["pass"])
    attach = Figure("A script that attaches, to python -c pass", ratio, "x", limit=ATTACH_LIMIT)
    return Section("Guard", METHOD, (*of_calls, attach))


def _of_calls(section: Section) -> Figure:
    fastest = {each.what: each.value for each in section.figures if each.column == calls.FASTEST}
    ratio = max(fastest[calls.FUNCTION], fastest[calls.METHOD]) / fastest[calls.LOOKING]
    what = f"{section.title}, to a bare spinning socket's"
    return Figure(what, ratio, "x", limit=CALL_LIMIT)
