"""How benchmarks judge and tell; what they measure is measured by `make bench` only."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

PROGRAM = """
from harness import Figure, Section
import report

figures = (
    Figure("low", 0.5, "x", limit=0.6, column="ratio"),
    Figure("few", 9.0, "/s", least=10.0, column="rate"),
    Figure("free", 1234.0, "µs"),
)
print([each.is_met for each in figures])
print(report.as_page([Section("Title", "Method.", figures)], {"processor": "one"}, "# Intro"))
"""


def test_goals_are_judged_and_listed_first() -> None:
    """An upper and a lower bound; the page begins with what is met and what is missed, and has a
    row and a column for what is compared."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=BENCHMARKS, capture_output=True, text=True, check=True
    ).stdout
    verdicts, _, page = told.partition("\n")
    assert verdicts == "[True, False, None]"
    goals, _, section = page.partition("## Title")
    assert "1 of 2 are met." in goals
    assert "| Title | low: ratio | 0.500 x | ≤ 0.6 x | met |" in goals
    assert "| Title | few: rate | 9.00 /s | ≥ 10 /s | **missed** |" in goals
    assert "|  | ratio, x | rate, /s |" in section
    assert "| low | 0.500 | - |" in section
    assert "| free | 1,234 µs |  |  |" in section
