"""`spawny pythons`: the interpreters that daemons may have."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import show
from .exits import FAILED, OK

if TYPE_CHECKING:
    from ..interpreters import Found

_HEAD = ("VERSION", "IMPLEMENTATION", "FOUND", "DAEMONS", "PATH")


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "pythons",
        help="list the Python interpreters that daemons may have",
        description="List the Python interpreters of this machine that daemons may have, and those"
        " that cannot run one, with the reason. Each is executed once; what it said is remembered"
        " until its file changes.",
    )
    parser.add_argument(
        "spec",
        metavar="SPEC",
        nargs="?",
        help="only the one that a daemon with this --python would get",
    )
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    parser.add_argument(
        "--refresh", action="store_true", help="execute them again, whatever is remembered"
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """List them."""
    found = _found(options)
    if options.json:
        print(json.dumps([_described(each) for each in found], indent=2))
    elif found:
        print(listing(found))
    else:
        print("no Python interpreter was found")
        return FAILED
    return OK


def listing(found: list[Found]) -> str:
    """The interpreters as a table."""

    def colour_of(title: str, cell: str) -> str:
        return {"yes": "green", "no": "red"}.get(cell, "") if title == "DAEMONS" else ""

    return show.table(_HEAD, [_row(each) for each in found], colour_of=colour_of)


def _found(options: argparse.Namespace) -> list[Found]:
    from ..interpreters import find, pythons

    if options.spec is not None:
        return [find(options.spec, refresh=options.refresh)]
    progress = _show_progress if sys.stderr.isatty() else None
    try:
        return pythons(refresh=options.refresh, progress=progress)
    finally:
        if progress:
            sys.stderr.write("\r\x1b[K")


def _show_progress(count: int, total: int) -> None:
    sys.stderr.write(f"\rasked {count} of {total} interpreters")
    sys.stderr.flush()


def _row(found: Found) -> list[str]:
    where = found.sources[0] if found.sources else "-"
    if found.environment:
        where += f" ({found.environment})"
    reason = found.problem or found.remark
    return [
        found.version_text or "-",
        found.implementation or "-",
        where,
        "yes" if found.can_run else "no",
        f"{found.path}: {reason}" if reason else found.path,
    ]


def _described(found: Found) -> dict[str, object]:
    return {**asdict(found), "can_run": found.can_run}
