"""Reading a log file: its last lines, and those to come.

A log is rotated by copying it to NAME.1 and truncating it, since the daemon that writes it must not
need to know. A reader notices that the file is shorter than what it has read, takes the lines that
it missed from the copy, and starts anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO

from .filewatch import FileWatch, watch_file

_BLOCK_BYTES = 65536


def tail(path: str | os.PathLike[str], lines: int | None = None) -> list[str]:
    """The last so many lines of a log, or all of its current file; without line ends.

    Where the file was rotated a short while ago, older files provide what is missing.
    """
    found = _last_lines(os.fspath(path), lines)
    age = 1
    while lines is not None and len(found) < lines:
        older = f"{os.fspath(path)}.{age}"
        if not os.path.exists(older):
            break
        found = _last_lines(older, lines - len(found)) + found
        age += 1
    return found


def follow(
    path: str | os.PathLike[str],
    stop: int | None = None,
    *,
    lines: int | None = None,
    watch: Callable[[str], FileWatch] = watch_file,
) -> Iterator[str]:
    """The last so many lines of a log (or all), then every line as it is completed.

    It ends when the descriptor `stop` becomes readable (a pipe or a pidfd, say), after whatever is
    in the file by then; without one it never ends by itself. The file may be rotated, removed and
    created meanwhile.
    """
    watching = watch(os.fspath(path))  # before the first look, so that nothing falls between
    with closing(watching), closing(_Reader(os.fspath(path), lines)) as reader:
        yield from reader.news()
        while watching.wait(stop):
            yield from reader.news()
        yield from reader.news()
        yield from reader.rest()


class _Reader:
    """How far one log has been read."""

    def __init__(self, path: str, lines: int | None) -> None:
        self._path = path
        self._log: BinaryIO | None = None
        self._position = 0
        self._incomplete = b""
        self._reopen()
        if self._log:
            self._position = _start_of_last(self._log, lines)

    def close(self) -> None:
        if self._log:
            self._log.close()

    def news(self) -> list[str]:
        """The lines completed since the last time."""
        data = self._read()
        if self._reopen():
            data += self._read()
        *complete, self._incomplete = (self._incomplete + data).split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def rest(self) -> list[str]:
        """What was written after the last line end."""
        return [self._incomplete.decode(errors="replace")] if self._incomplete else []

    def _reopen(self) -> bool:
        """Whether another file has taken the place of the one that is read; then that is read."""
        # The old one stays open until then: its inode number could be the new one's otherwise.
        try:
            there = os.stat(self._path)
            if self._log and os.path.samestat(os.fstat(self._log.fileno()), there):
                return False
            log = open(self._path, "rb")  # noqa: SIM115 (close() closes it)
        except FileNotFoundError:
            return False
        self.close()
        self._log, self._position = log, 0
        return True

    def _read(self) -> bytes:
        if not self._log:
            return b""
        missed = b""
        if os.fstat(self._log.fileno()).st_size < self._position:
            missed, self._position = self._missed(), 0
        self._log.seek(self._position)
        data = self._log.read()
        self._position += len(data)
        return missed + data

    def _missed(self) -> bytes:
        """What was written between the last look and the rotation: the end of the copy."""
        try:
            with open(f"{self._path}.1", "rb") as copy:
                copy.seek(self._position)
                return copy.read()
        except FileNotFoundError:
            return b""


def _last_lines(path: str, lines: int | None) -> list[str]:
    with open(path, "rb") as log:
        log.seek(_start_of_last(log, lines))
        text = log.read().decode(errors="replace")
    return text.removesuffix("\n").split("\n") if text else []


def _start_of_last(log: BinaryIO, lines: int | None) -> int:
    """Where the last so many lines begin: searched from the end, since logs are long."""
    if lines is None:
        return 0
    end = log.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    # The file's last byte closes its last line, and begins none.
    position, missing = max(end - 1, 0), lines
    while position > 0:
        start = max(position - _BLOCK_BYTES, 0)
        log.seek(start)
        block = log.read(position - start)
        found = block.rfind(b"\n")
        while found >= 0:
            missing -= 1
            if missing == 0:
                return start + found + 1
            found = block.rfind(b"\n", 0, found)
        position = start
    return 0
