"""What parses and decides, without any process: one wrong input after the other."""

import random
from collections.abc import Callable

from spawny import control
from spawny.errors import VersionMismatch
from spawny.kernel import link, wire
from spawny.supervisor import actions, events, links
from spawny.supervisor.core import Core
from spawny.supervisor.values import Caller, Interpreter
from tests.fuzz.mutation import Mutator
from tests.fuzz.samples import (
    FIRST,
    MESSAGES,
    REQUEST,
    call_frame,
    control_frames,
    link_bytes,
)
from tests.supervisor.world import SETTINGS

# A fleet that is fed for ever would be one of thousands of daemons.
_FRESH_AFTER = 500


class Deciding:
    """The supervisor's core behind both of its codecs; no action is performed but a start's, which
    is told to have succeeded. Nothing that is decided upon raises."""

    def __init__(self, rng: random.Random) -> None:
        self._mutator = Mutator(rng)
        self._fed = 0
        self._renew()

    def _renew(self) -> None:
        welcome = control.Welcome("3", 1, "/p", False)
        self._core = Core(SETTINGS, welcome, log_of=str, jitter=lambda: 0.5, now=0.0)

    def control(self) -> None:
        """A request's frames: refused, or decided upon."""
        frames = control_frames(self._mutator, MESSAGES)
        try:
            message = control.decode(frames).message
        except (control.MalformedMessage, VersionMismatch):
            control.peek_request_id(frames)
            return
        # What came through goes out again.
        if control.decode(control.encode(message)).message != message:
            assert "nan" in repr(message)
        caller = Caller(b"fuzz", 1)
        if isinstance(message, control.StartDaemon):
            python = Interpreter(message.python, message.python)
            found = self._mutator.rng.choice((python, None))
            self._step(events.StartRequested(caller, message, found, "no such python"))
        elif isinstance(message, REQUESTS):
            self._step(events.Requested(caller, message))

    def link(self) -> None:
        """A link's bytes, cut anywhere: a LinkError ends it, everything before is decided upon."""
        data = link_bytes(self._mutator)
        decoder = link.Decoder(0)
        cut = self._mutator.rng.randrange(len(data) + 1)
        number = self._mutator.rng.randrange(1, 4)
        try:
            for piece in (data[:cut], data[cut:]):
                for header, _ in decoder.feed(piece):
                    self._step(links._parse(number, header))
        except ValueError:  # LinkError, or a path that cannot be one
            self._step(events.LinkLost(number))

    def _step(self, event: events.Event) -> None:
        self._fed += 1
        if self._fed % _FRESH_AFTER == 0:
            self._renew()
        for action in self._core.step(event, float(self._fed)):
            if isinstance(action, actions.Reply):
                control.encode(action.message)
        self._core.next_deadline()


REQUESTS = (
    control.Hello,
    control.FindDaemon,
    control.ListDaemons,
    control.StopDaemon,
    control.RestartDaemon,
    control.InterruptDaemon,
    control.WatchEvents,
    control.UnwatchEvents,
)


class Reading:
    """The call channel's reader: frames or a WireError, however the bytes are cut."""

    def __init__(self, rng: random.Random) -> None:
        self._mutator = Mutator(rng)

    def wire(self) -> None:
        rng = self._mutator.rng
        data = b"".join(call_frame(self._mutator, FIRST + REQUEST) for _ in range(3))
        reader = wire.FrameReader()
        start = 0
        while start < len(data):
            size = rng.randrange(1, len(data) + 1)
            try:
                for _, _, body in reader.feed(data[start : start + size]):
                    assert len(body) <= len(data)
            except (wire.WireError, MemoryError):
                return
            start += size


def targets(rng: random.Random) -> dict[str, Callable[[], None]]:
    """By name, what takes one input and raises where something is wrong."""
    deciding, reading = Deciding(rng), Reading(rng)
    return {"control": deciding.control, "link": deciding.link, "wire": reading.wire}
