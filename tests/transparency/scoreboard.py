"""Write docs/transparency.md: which of CPython's tests proxies pass, beside their peers'.

`make transparency` runs it; so does `python -m tests.transparency.scoreboard` where rpyc and wrapt
are installed.
"""

import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path

from tests.transparency import candidates, cpython
from tests.transparency.known import KNOWN

PAGE = Path(__file__).parents[2] / "docs" / "transparency.md"

BEGIN, END = "<!-- scoreboard: begin -->\n", "<!-- scoreboard: end -->\n"

PEERS = {
    "spawny": candidates.spawny_candidate,
    "rpyc": candidates.rpyc_candidate,
    "multiprocessing": candidates.multiprocessing_candidate,
    "wrapt": candidates.wrapt_candidate,
}

SOURCES = {
    "list": "`test.list_tests.CommonTest`",
    "tuple": "`test.seq_tests.CommonTest`",
    "dict": "`test.mapping_tests.TestHashMappingProtocol`",
    "set": "`test.test_set.TestJointOps`",
}


def main() -> None:
    # Some peers keep what they print about callers' exceptions in a log of their own: not here.
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as home:
        os.environ["SPAWNY_HOME"] = home
        passed = {name: _passed(name) for name in PEERS}
    board = _table(passed) + "\n" + _reasons()
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + board + END + rest.split(END)[1], encoding="utf-8")
    print(board)


def _passed(peer: str) -> dict[str, str]:
    found = {}
    with PEERS[peer]() as make:
        for name, suite in cpython.suites(make).items():
            tests = cpython.names(suite)
            failed = [each for each in tests if cpython.failure(suite, each)]
            found[name] = f"{len(tests) - len(failed)} of {len(tests)}"
            wrong = set(failed).symmetric_difference(KNOWN[name]) if peer == "spawny" else ()
            assert not wrong, f"known.py is not true of {wrong}"
    return found


def _table(passed: dict[str, dict[str, str]]) -> str:
    lines = [
        f"Measured with CPython {platform.python_version()}, rpyc {metadata.version('rpyc')}"
        f" and wrapt {metadata.version('wrapt')}.\n",
        "| tests of CPython | " + " | ".join(passed) + " |",
        "|---|" + "---|" * len(passed),
    ]
    for name, source in SOURCES.items():
        figures = [found.get(name, "has none") for found in passed.values()]
        lines.append(f"| {source} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def _reasons() -> str:
    lines = ["| of | does not pass | since |", "|---|---|---|"]
    for suite, known in KNOWN.items():
        lines += [f"| {suite} | `{test}` | {reason} |" for test, reason in known.items()]
    return "What spawny does not pass, and why:\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
