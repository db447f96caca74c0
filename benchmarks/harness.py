"""What every benchmark shares: figures with a goal, rounds that interleave, a home of its own.

Others use the same machine. So no candidate is measured for long at a stretch: each round takes all
of them, in an order shuffled anew, and what is compared is compared within its round. A figure is
the median over the rounds.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# A unix socket's path has 107 bytes; /run/d/NAME.sock takes some 30 of them here.
_HOME_LIMIT_BYTES = 70

# Of a candidate: a word, or several.
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Figure:
    """One measured number. It may have a goal: `limit` is an upper bound, `least` a lower one.

    Figures with a `column` make a table, in which `what` is the row.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""
    least: float | None = None
    column: str = ""

    @property
    def is_met(self) -> bool | None:
        """None without a goal."""
        if self.limit is None and self.least is None:
            return None
        is_too_much = self.limit is not None and self.value > self.limit
        return not is_too_much and (self.least is None or self.value >= self.least)


@dataclass(frozen=True)
class Section:
    """What one benchmark found, and in a few words how it looked."""

    title: str
    method: str
    figures: tuple[Figure, ...]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def interleave(
    candidates: Mapping[Name, Callable[[], float]], rounds: int
) -> dict[Name, list[float]]:
    """Each candidate's result in each round."""
    order = random.Random(1)
    results: dict[Name, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        names = list(candidates)
        order.shuffle(names)
        for name in names:
            results[name].append(candidates[name]())
    return results


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios: whatever slowed a round down slowed both."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """As `median_ratio`, for what is added rather than multiplied."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def run_milliseconds(command: Sequence[str]) -> float:
    """From the start of a command to its end."""
    began = time.perf_counter_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter_ns() - began) / 1e6


@contextmanager
def private_home(base: str | None = None) -> Iterator[Path]:
    """A SPAWNY_HOME with a supervisor of its own, in `base` or where temporary files are; both are
    gone afterwards."""
    import spawny

    base = base or tempfile.gettempdir()
    if len(os.fsencode(base)) > _HOME_LIMIT_BYTES:
        base = "/tmp"
    home = Path(tempfile.mkdtemp(prefix="sp-bench-", dir=base))
    before = os.environ.get("SPAWNY_HOME")
    os.environ["SPAWNY_HOME"] = str(home)
    try:
        yield home
    finally:
        with suppress(spawny.SupervisorUnavailable):
            spawny.connect(start=False).shutdown()
        if before is None:
            del os.environ["SPAWNY_HOME"]
        else:
            os.environ["SPAWNY_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)


def machine() -> dict[str, str]:
    """What the figures depend on, and nothing that tells whose machine it is."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def load() -> float:
    """How many processes wanted a processor in the last minute, ours among them."""
    return os.getloadavg()[0]


def python(*arguments: str) -> list[str]:
    """A command for this very interpreter."""
    return [sys.executable, *arguments]
