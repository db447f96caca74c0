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

# Of a column whose cell is nobody's.
NONE = "-"


def as_text(section: Section) -> str:
    """A block for the terminal."""
    lines = [section.title, "-" * len(section.title)]
    for head, *rows in _tables(section):
        cells = [tuple(head), *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        for row in cells:
            first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {first.strip():<{widths[0]}}  {'  '.join(others)}".rstrip())
    lines += [
        f"  goal: {', '.join(filter(None, row))}"
        for _, *row in _goals([section])
        if _is_tabled(section)
    ]
    return "\n".join(lines)


def as_page(
    sections: Sequence[Section], machine: Mapping[str, str], introduction: str = INTRODUCTION
) -> str:
    """A page of the documentation, by default `docs/benchmarks.md`."""
    parts = [introduction, _table(("measured on", ""), machine.items())]
    goals = list(_goals(sections))
    if goals:
        met = sum(verdict == "met" for *_, verdict in goals)
        parts.append(f"## Goals\n\n{met} of {len(goals)} are met.\n")
        parts.append(_table(("of", "what", "measured", "goal", ""), goals))
    for section in sections:
        parts.append(f"## {section.title}\n\n{section.method}\n")
        parts += [_table(head, rows) for head, *rows in _tables(section)]
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


def _goals(sections: Iterable[Section]) -> Iterable[tuple[str, str, str, str, str]]:
    for section in sections:
        for each in section.figures:
            if each.is_met is not None:
                what = f"{each.what}: {each.column}" if each.column else each.what
                verdict = "met" if each.is_met else "**missed**"
                yield section.title, what, _value(each), _goal(each), verdict


def _is_tabled(section: Section) -> bool:
    return any(each.column for each in section.figures)


def _tables(section: Section) -> Iterable[list[Sequence[str]]]:
    """Heads and rows: one with a row for a `what` and its columns, and one of what has none."""
    if tabled := [each for each in section.figures if each.column]:
        yield _columns(tabled)
    plain = [each for each in section.figures if not each.column]
    if plain:
        yield [
            ("", "measured", "goal", "note"),
            *((each.what, _value(each), _verdict(each), each.note) for each in plain),
        ]


def _columns(figures: Sequence[Figure]) -> list[Sequence[str]]:
    units: dict[str, set[str]] = {}
    rows: dict[str, dict[str, Figure]] = {}
    for each in figures:
        units.setdefault(each.column, set()).add(each.unit)
        rows.setdefault(each.what, {})[each.column] = each
    # What all cells of a column share stands in its head.
    shared = {column: min(found) if len(found) == 1 else "" for column, found in units.items()}
    head = ["", *(", ".join(filter(None, (c, shared[c]))) for c in units)]

    def cell(found: Figure | None) -> str:
        if found is None:
            return NONE
        return _number(found) if shared[found.column] else _value(found)

    return [head, *([what, *(cell(row.get(c)) for c in units)] for what, row in rows.items())]


def _value(figure: Figure) -> str:
    return f"{_number(figure)} {figure.unit}".rstrip()


def _number(figure: Figure) -> str:
    """Three digits, of a count all."""
    size = abs(figure.value)
    digits = 0 if not figure.unit or size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{figure.value:,.{digits}f}"


def _goal(figure: Figure) -> str:
    bounds = (("≤", figure.limit), ("≥", figure.least))
    told = " and ".join(f"{sign} {bound:,g}" for sign, bound in bounds if bound is not None)
    return f"{told} {figure.unit}".rstrip()


def _verdict(figure: Figure) -> str:
    if figure.is_met is None:
        return ""
    return _goal(figure) + (": met" if figure.is_met else ": missed")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows), ""])
