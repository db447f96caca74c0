"""What shows only after long, or with many: `make endurance`.

Kills of the supervisor under load, thousands of daemons in a row, hundreds at once. The full run
takes half an hour and more, and writes docs/endurance.md. With --outcome nothing is written, no
time is judged, and what went wrong is the exit code.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import crowd
import cycles
import harness
import kills
import report
from harness import Section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "endurance.md"

INTRODUCTION = """\
# Endurance

Written by `make endurance`, which anybody can run. It has no peers: what it shows is that nothing
is lost, nothing is left behind and nothing grows.
"""

# Of these the goal is no matter of how fast the machine is, or what else it does.
OUTCOMES = ("", "MiB")


def main() -> int:
    """Run; 1 where an outcome that is judged is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of the supervisor")
    parser.add_argument("--cycles", type=int, default=10_000, help="daemons started and ended")
    parser.add_argument("--daemons", type=int, default=300, help="at once")
    parser.add_argument("--outcome", action="store_true", help="judge no time, write no page")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    logging.getLogger("spawny").setLevel(logging.WARNING)
    machine = harness.machine()
    loads, sections = [harness.load()], []
    for section in _measured(options):
        print(report.as_text(section), end="\n\n", flush=True)
        sections.append(section)
        loads.append(harness.load())
    if options.outcome:
        return _judge(sections)
    machine["load"] = f"{loads[0]:.1f} before, {min(loads[1:]):.1f} to {max(loads[1:]):.1f} during"
    PAGE.write_text(report.as_page(sections, machine, INTRODUCTION), encoding="utf-8")
    print(f"wrote docs/{PAGE.name}")
    return 0


def _measured(options: argparse.Namespace) -> Iterator[Section]:
    is_short = options.outcome
    yield crowd.measure(
        options.daemons, listings=1 if is_short else 30, seconds=0.1 if is_short else 60
    )
    yield kills.measure(options.kills)
    yield cycles.measure(options.cycles)


def _judge(sections: list[Section]) -> int:
    missed = [
        f"{section.title}: {each.what} is {each.value:g} {each.unit} ({each.note})"
        for section in sections
        for each in section.figures
        if each.unit in OUTCOMES and each.is_met is False
    ]
    for each in missed:
        print(f"MISSED: {each}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
