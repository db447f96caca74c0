"""Text for people: columns, sizes, durations, colours."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2}

_GAP = "  "

# A last column is never cut shorter than this: on a narrow terminal lines wrap, and stay readable.
_LEAST_WIDTH = 16


def size(size_bytes: int) -> str:
    """A size as `31.4 MB`; powers of 1000."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.95:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """A duration in its two largest units, as `3 h 5 min`; parts of a second only below 10."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, length)
        parts.append((amount, unit))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Set[str] = frozenset(),
    colour_of: Callable[[str, str], str] = lambda title, cell: "",
    width: int | None = None,
) -> str:
    """Aligned columns, those of these titles to the right; the last one is cut at `width`.

    `colour_of` names the colour of a cell by the title of its column and its text.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    if width is not None:
        left = width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(left, _LEAST_WIDTH))

    def line(row: Sequence[str], is_head: bool = False) -> str:
        cells = []
        for title, cell, wide in zip(head, row, widths, strict=True):
            fitting = cell if len(cell) <= wide else cell[: wide - 1] + "…"
            padded = fitting.rjust(wide) if title in numbers else fitting.ljust(wide)
            # Painted last: colours have a length, but no width.
            colour = "dim" if is_head else colour_of(title, cell)
            cells.append(paint(padded, colour) if colour else padded)
        return _GAP.join(cells).rstrip()

    return "\n".join([line(head, is_head=True), *map(line, rows)])


def paint(text: str, colour: str) -> str:
    """The text in a colour where that can be seen; otherwise as it is."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if is_coloured() else text


def is_coloured() -> bool:
    """Whether standard output is a terminal whose user wants colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def terminal_width() -> int | None:
    """How wide a line may be; None where it goes into a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """What is warned of in here is said afterwards: there is no line of anybody's to name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for each in caught:
        print(f"spawny: {each.message}", file=sys.stderr)
