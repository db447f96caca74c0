"""What is shown while an environment is built: one live line of a terminal, or lines of a log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Protocol, TextIO

_ERASE_LINE = "\r\033[K"


class Progress(Protocol):
    """Who is told how it goes."""

    def say(self, text: str) -> None:
        """What is worth a line for good."""

    def detail(self, text: str) -> None:
        """What the tool does at the moment."""

    def close(self) -> None:
        """It is over, well or not."""


class Lines:
    """Everything in lines, such as those of a log."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def say(self, text: str) -> None:
        self._write(text)

    def detail(self, text: str) -> None:
        self._write("  " + text)

    def close(self) -> None:
        pass


class Live:
    """What the tool does, in a line of a terminal that is written over; the rest as lines."""

    def __init__(self, terminal: TextIO, write: Callable[[str], object]) -> None:
        self._terminal = terminal
        self._write = write

    def say(self, text: str) -> None:
        self.close()
        self._write(text)

    def detail(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        shown = "".join(char if char.isprintable() else " " for char in f"  {text}")
        self._show(_ERASE_LINE + shown[: columns - 1])

    def close(self) -> None:
        self._show(_ERASE_LINE)

    def _show(self, text: str) -> None:
        try:
            self._terminal.write(text)
            self._terminal.flush()
        except (OSError, ValueError):
            pass  # the terminal has gone; the build goes on


def progress_to(terminal: TextIO | None, write: Callable[[str], object]) -> Progress:
    """A live line where that is a terminal; otherwise lines."""
    if terminal is not None and terminal.isatty():
        return Live(terminal, write)
    return Lines(write)
