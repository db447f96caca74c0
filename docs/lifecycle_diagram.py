"""Writes the diagram of a daemon's life into design.md, from the table that the supervisor uses.

Run it after a change of `spawny/supervisor/lifecycle.py`; a test fails until then.
"""

from pathlib import Path

from spawny.supervisor.lifecycle import diagram

PAGE = Path(__file__).with_name("design.md")
BEGIN = "<!-- lifecycle diagram: begin -->\n"
END = "<!-- lifecycle diagram: end -->\n"


def with_diagram(page: str) -> str:
    """The page with the diagram as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n```mermaid\n{diagram()}```\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
