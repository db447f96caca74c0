"""How a session and a run of its daemon come to know each other: the greeting, and its outcome."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress

from ..errors import CallTimeout, InvalidRequest, SpawnyError
from ..kernel import buffers, wire
from .channel import Channel, ChannelClosed
from .references import run_of
from .results import exception_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .session import Session

# A daemon's control thread greets at once, however long a call or a definition takes.
GREETING_SECONDS = 10.0

# But one that was just made waits for its definition, which a supervisor sends. After such a
# silence it is seen to that there is one.
SILENCE_SECONDS = 0.5


class Attachment:
    """By what id this process is known, and to which run of the daemon of that name."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self.started: dict[str, Any] = {}  # what the daemon says of itself, see kernel/greeting.py
        self.settled: dict[str, Any] = {}  # the same, of the run that our references are of
        self.session_id = os.urandom(8).hex()
        self._parent_id: str | None = None
        self._is_known = False  # does the daemon know this session by its id?

    def connect(self, session: Session, timeout: float | None) -> Channel:
        """See `Session.connect`."""
        channel = Channel(self._path, GREETING_SECONDS, session)
        try:
            channel.sock.sendall(self.hello(wire.ROLE_CALLS))
            kind, body = _greeting(channel)
            if kind == wire.ERROR:
                raise exception_of(session, body)
            self.started = pickle.loads(body)
            if self.started["pid"] == os.getpid():
                raise InvalidRequest(
                    f"this is daemon {self._name!r} itself: it cannot attach to it"
                )
        except BaseException as error:
            channel.close()
            if isinstance(error, TimeoutError) and error.errno is None:
                raise CallTimeout(
                    f"daemon {self._name!r} has not answered for {GREETING_SECONDS:g} s: it is"
                    " stopped, or in C code that keeps the interpreter's lock;"
                    f" to end it: spawny stop {self._name}"
                ) from error
            raise
        channel.sock.settimeout(timeout)
        self._is_known = True
        return channel

    def check_run(self, channel: Channel) -> None:
        """Raise `ChannelClosed` where this new connection is to another run: that died and was
        started anew, and nobody here has noticed, as in a forked child. The numbers that we have
        for objects are others' there."""
        if run_of(self.started) != run_of(self.settled):
            channel.close()
            self.started = self.settled
            raise ChannelClosed

    def ready(self, session: Session, channel: Channel) -> tuple[Any, ...]:
        """The root's reference, once the definition is done with; its exception is raised. The
        channel is closed where it failed."""
        try:
            kind, _, body = channel.next_frame()
            if kind == wire.ERROR:
                raise exception_of(session, body)
        except BaseException:
            channel.close()
            raise
        root: tuple[Any, ...]
        root, channel.connection_id = pickle.loads(body)
        channel.sock.settimeout(None)
        return root

    def hello(self, role: str) -> bytes:
        """The first frame of a connection."""
        fields = (
            wire.PROTOCOL,
            self.session_id,
            role,
            os.getpid(),
            pickle.HIGHEST_PROTOCOL,
            self._parent_id,
            buffers.can_borrow(),
        )
        frame: bytes = wire.frame(wire.HELLO, pickle.dumps(fields, 2))
        return frame

    def begin_anew(self) -> None:
        """The run that knew us is over."""
        self.session_id, self._parent_id = os.urandom(8).hex(), None

    def forked(self) -> None:
        """In a forked child: a session of its own, which is given what the parent's refers to."""
        if self._is_known:
            self._parent_id, self._is_known = self.session_id, False
        self.session_id = os.urandom(8).hex()


def _greeting(channel: Channel) -> tuple[int, bytes]:
    channel.sock.settimeout(SILENCE_SECONDS)
    try:
        kind, _, body = channel.next_frame()
    except TimeoutError as error:
        if error.errno is not None:
            raise
        from ..paths import locate
        from .autostart import ensure_supervisor

        with suppress(SpawnyError):  # it may be that the daemon is only slow
            ensure_supervisor(locate())
        channel.sock.settimeout(GREETING_SECONDS)
        kind, _, body = channel.next_frame()
    return kind, body
