"""Measure spawny beside its peers: `make bench`, or with --quick as a guard for CI.

The full run takes some ten minutes and writes docs/benchmarks.md and benchmarks/results.json; with
the names of benchmarks only these run, and nothing is written. The quick one (`make guard`) takes
less than one, and fails when spawny has become slow against its floor.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import harness
import report
from harness import Section

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run; 1 when the quick run finds spawny too slow. Missed goals of a full run are only told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes nothing")
    parser.add_argument("only", nargs="*", help=f"of {', '.join(BENCHMARKS)}; writes nothing")
    options = parser.parse_args()
    # Some containers set it; every import would then compile what it imports, in every process.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    logging.getLogger("spawny").setLevel(logging.WARNING)
    if options.quick:
        import guard

        return guard.main()
    for unknown in set(options.only) - set(BENCHMARKS):
        parser.error(f"{unknown} is none of {', '.join(BENCHMARKS)}")
    return run(options.only)


def run(only: list[str]) -> int:
    machine = harness.machine()
    began, loads, sections = time.monotonic(), [harness.load()], []
    for name in only or BENCHMARKS:
        for section in BENCHMARKS[name]():
            print(report.as_text(section), end="\n\n", flush=True)
            sections.append(section)
            loads.append(harness.load())
        print(f"[{name}: after {time.monotonic() - began:.0f} s]", end="\n\n", flush=True)
    machine["load"] = f"{loads[0]:.1f} before, {min(loads[1:]):.1f} to {max(loads[1:]):.1f} during"
    if not only:
        for path in report.write(sections, machine, REPOSITORY):
            print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


# Each is imported when it is its turn: what it needs is not in the processes of those before.


def _calls() -> Iterable[Section]:
    import calls

    return calls.measure(rounds=30)


def _throughput() -> Iterable[Section]:
    import throughput

    return [throughput.measure(rounds=3)]


def _shapes() -> Iterable[Section]:
    import shapes

    return [shapes.measure(rounds=15)]


def _arrays() -> Iterable[Section]:
    import arrays

    return arrays.measure()


def _scripts() -> Iterable[Section]:
    import imports
    import scripts

    yield scripts.measure(rounds=30)
    yield imports.measure(rounds=15)


def _warm() -> Iterable[Section]:
    import warm

    return [warm.measure(rounds=30)]


def _footprint() -> Iterable[Section]:
    import footprint

    return [footprint.measure(seconds=20)]


def _deaths() -> Iterable[Section]:
    import deaths

    return [deaths.measure(rounds=15)]


BENCHMARKS: dict[str, Callable[[], Iterable[Section]]] = {
    "calls": _calls,
    "throughput": _throughput,
    "shapes": _shapes,
    "arrays": _arrays,
    "scripts": _scripts,
    "warm": _warm,
    "footprint": _footprint,
    "deaths": _deaths,
}


if __name__ == "__main__":
    sys.exit(main())
