"""What a script imports on spawny's behalf, module by module."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable, Sequence

from harness import Figure, Section, interleave, private_home, python

import spawny

BARE = "pass"
PATHS = {
    "import spawny": "import spawny",
    "attach, call": "import spawny; spawny.attach('served').answer()",
    "run_script, call": "import spawny; spawny.run_script('def answer(): return 42').answer()",
}

# What takes less, in every path, is told only in the sums.
LEAST_MILLISECONDS = 0.4

OURS, OTHERS, ALL = "all of spawny's own", "all others", "all"

METHOD = (
    "Milliseconds that the execution of each module's own lines takes, as `python -X importtime`"
    " tells it (which takes time itself), beyond what `python -c pass` imports: medians of"
    " {rounds} rounds. What is not spawny's is told by package, with all that is in it. What takes"
    f" less than {LEAST_MILLISECONDS} ms is only in the sums. zmq, and what comes with it, is"
    " imported by what needs the supervisor."
)

# "import time:       123 |        456 |   name"
_LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")


def measure(rounds: int) -> Section:
    """A table of modules and the paths that import them."""
    found: dict[str, list[dict[str, float]]] = {path: [] for path in PATHS}
    with private_home():
        served = spawny.run_script("def answer():\n    return 42", name="served")
        bare = self_milliseconds(BARE)
        interleave({path: _round(path, found[path], bare) for path in PATHS}, rounds)
        served.terminate_daemon()
    medians = {path: _medians(each) for path, each in found.items()}
    figures = []
    for what, is_of_it in (
        ("all", lambda name: True),
        ("spawny's own modules", _is_ours),
        ("all others", lambda name: not _is_ours(name)),
    ):
        for path, each in medians.items():
            own = [took for name, took in each.items() if is_of_it(name)]
            figures.append(Figure(what, sum(own), "ms", column=path))
            figures.append(Figure(f"{what}: how many", len(own), "", column=path))
    return Section(
        "Imports",
        METHOD.format(rounds=rounds),
        (*figures, *_largest({path: _told_together(each) for path, each in medians.items()})),
    )


def _largest(paths: dict[str, dict[str, float]]) -> list[Figure]:
    longest: dict[str, float] = {}
    for times in paths.values():
        for name, took in times.items():
            longest[name] = max(took, longest.get(name, 0))
    return [
        Figure(f"`{name}`", times[name], "ms", column=path)
        for name in sorted(longest, key=lambda name: -longest[name])
        if longest[name] >= LEAST_MILLISECONDS
        for path, times in paths.items()
        if name in times
    ]


def _told_together(times: dict[str, float]) -> dict[str, float]:
    """Packages of others as one."""
    found: dict[str, float] = {}
    for name, took in times.items():
        what = name if _is_ours(name) else name.partition(".")[0]
        found[what] = found.get(what, 0) + took
    return found


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "spawny"


def _round(path: str, found: list[dict[str, float]], bare: dict[str, float]) -> Callable[[], float]:
    def run() -> float:
        times = self_milliseconds(PATHS[path])
        found.append({name: took for name, took in times.items() if name not in bare})
        return sum(found[-1].values())

    return run


def self_milliseconds(program: str) -> dict[str, float]:
    """What each module takes that a program imports, without those that it imports in turn."""
    told = subprocess.run(
        python("-X", "importtime", "-c", program),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ).stderr
    return {name: int(took) / 1000 for took, name in _LINE.findall(told)}


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(each.get(name, 0) for each in rounds)
        for name in dict.fromkeys(name for each in rounds for name in each)
    }
