"""The figures as text for a terminal, as a page of the documentation, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness import Figure, Section

INTRODUCTION = """\
# Benchmarks

Written by `make bench`, which anybody can run. All peers run in one go on one machine, taking turns
in short rounds, so that whatever else the machine was doing slowed all of them; ratios travel to
other machines better than times do.

Which core runs what decides more than most code does. Waking a process on another, sleeping core
takes tens of microseconds, on the same core a few. An end that looks for its answer a little while
before it sleeps, as spawny's do, is much faster on a core of its own, and in the other's way on a
shared one. Left alone the scheduler does now this, now that; so calls are measured in each
placement.
"""


def as_text(section: Section) -> str:
    """A block for the terminal."""
    lines = [section.title, "-" * len(section.title)]
    width = max(len(each.what) for each in section.figures)
    for each in section.figures:
        goal = f"goal {_verdict(each)}" if each.limit is not None else ""
        lines.append(
            f"  {each.what:<{width}}  {_value(each):>12}  {goal:<20}  {each.note}".rstrip()
        )
    return "\n".join(lines)


def as_page(
    sections: Sequence[Section], machine: Mapping[str, str], introduction: str = INTRODUCTION
) -> str:
    """A page of the documentation, by default `docs/benchmarks.md`."""
    parts = [introduction, _table(("measured on", ""), machine.items())]
    for section in sections:
        rows = [
            (each.what, _value(each), _verdict(each) if each.limit is not None else "", each.note)
            for each in section.figures
        ]
        parts += [
            f"## {section.title}\n\n{section.method}\n",
            _table(("what", "measured", "goal", "note"), rows),
        ]
    return "\n".join(parts)


def as_json(sections: Sequence[Section], machine: Mapping[str, str]) -> str:
    """For programs: the same, unrounded."""
    found = {"machine": dict(machine), "sections": [asdict(each) for each in sections]}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def write(sections: Sequence[Section], machine: Mapping[str, str], repository: Path) -> list[Path]:
    """Write page and JSON; where they are."""
    page = repository / "docs" / "benchmarks.md"
    results = repository / "benchmarks" / "results.json"
    page.write_text(as_page(sections, machine), encoding="utf-8")
    results.write_text(as_json(sections, machine), encoding="utf-8")
    return [page, results]


def _value(figure: Figure) -> str:
    digits = 0 if not figure.unit else 3 if figure.unit in ("x", "%") else 1
    if figure.unit == "/s":
        digits = 2
    return f"{figure.value:.{digits}f} {figure.unit}".rstrip()


def _verdict(figure: Figure) -> str:
    return f"≤ {figure.limit:g} {figure.unit}".rstrip() + (": met" if figure.is_met else ": missed")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows), ""])
