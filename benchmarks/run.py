"""Measure spawny beside its peers: `make bench`, or with --quick as a guard for CI.

The full run takes some minutes and writes docs/benchmarks.md and benchmarks/results.json. The quick
one takes less than one and fails when calls have become slow against their floor.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import arrays
import calls
import deaths
import footprint
import harness
import placement
import report
import scripts
import shapes
import warm
from harness import Section

REPOSITORY = Path(__file__).resolve().parents[1]

# A regression that matters (a lost spin, a second round trip, a thread hand-over) at least doubles
# a call. With a core for each end spawny takes a third of the floor, on a shared one half as much
# again: both leave much room for a busy machine.
QUICK_LIMITS = {placement.OWN_CORES: 1.5, placement.ONE_CORE: 2.5}


def main() -> int:
    """Run; 1 when the quick run finds calls too slow. Missed goals of a full run are only told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes nothing")
    quick = parser.parse_args().quick
    # Some containers set it; every import would then compile what it imports, in every process.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    logging.getLogger("spawny").setLevel(logging.WARNING)
    return run_quick() if quick else run_full()


def run_full() -> int:
    machine = harness.machine()
    loads = [harness.load()]
    sections = []
    for section in _measured():
        print(report.as_text(section), end="\n\n", flush=True)
        sections.append(section)
        loads.append(harness.load())
    machine["load"] = f"{loads[0]:.1f} before, {min(loads[1:]):.1f} to {max(loads[1:]):.1f} during"
    for path in report.write(sections, machine, REPOSITORY):
        print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


def _measured() -> Iterator[Section]:
    yield from calls.measure(rounds=30)
    yield shapes.measure(rounds=15)
    yield from arrays.measure()
    yield scripts.measure(rounds=30)
    yield warm.measure(rounds=30)
    yield footprint.measure(seconds=30)
    yield deaths.measure(rounds=15)


def run_quick() -> int:
    began = time.monotonic()
    by_call = calls.measure(rounds=7)
    for section in (*by_call, scripts.measure(rounds=5)):
        print(report.as_text(section), end="\n\n")
    slow = [
        f"{each.what} is {each.value:.2f} with {place}, over {limit}"
        for place, limit in QUICK_LIMITS.items()
        for section in by_call
        if section.title.endswith(place)
        for each in section.figures
        if each.unit == "x" and each.what.endswith(calls.FLOOR) and each.value > limit
    ]
    for each in slow:
        print(f"TOO SLOW: {each}", file=sys.stderr)
    print(f"{'failed' if slow else 'fine'}, after {time.monotonic() - began:.0f} s")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
