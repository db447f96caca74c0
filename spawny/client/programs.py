"""Programs that a daemon runs with our terminal: the near end of `kernel/programs.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import VersionMismatch
from ..kernel import wire
from .channel import errand
from .proxy import reference_of
from .references import Epitaph

if TYPE_CHECKING:
    from types import FrameType

    from .proxy import ObjectProxy

# As a shell has it for a program that SIGINT has ended.
INTERRUPTED = 130


class Terminal:
    """Runs programs in the daemon of this root, which has our standard streams for them."""

    def __init__(self, root: ObjectProxy) -> None:
        self._root = root  # keeps the daemon
        session = reference_of(root).session
        assert not isinstance(session, Epitaph)
        self.session = session
        self._settings: Any = None

    def __enter__(self) -> Terminal:
        if not self.session.started.get("runs_programs"):
            raise VersionMismatch(
                f"daemon {self.session.name!r} was started by an older spawny, which runs no"
                f" programs: spawny stop {self.session.name}, and start it anew"
            )
        # A program may die before it has put them back.
        with contextlib.suppress(termios.error):
            self._settings = termios.tcgetattr(0)
        with _open_streams() as descriptors:
            errand(
                self.session.path, wire.STREAMS, self.session.session_id, descriptors=descriptors
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._settings is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self._settings)

    def run(self, kind: str, text: str | bytes, argv: list[str], folder: str) -> int | None:
        """The exit code; None where a block has not exited."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        program = kind, text, argv, folder, os.getcwd(), encoding
        sys.stdout.flush()
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            code: int | None = self.session.request(wire.PROGRAM, program)
            return code
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C is for the program, however often it comes: it may be what it waits for."""
        if not self.session.interrupt():
            raise KeyboardInterrupt  # it has not begun, or nobody hears it


@contextlib.contextmanager
def _open_streams() -> Iterator[list[int]]:
    """Our standard streams; nothing at all in place of one that was closed when we began, since its
    number may be anything's by now."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    with open(os.devnull, "r+b") as nothing:
        yield [
            number if stream is not None else nothing.fileno()
            for number, stream in enumerate(streams)
        ]
