"""One connection to the supervisor: the client's only file with zmq.

The one rule: a request is a conversation of its own. Its zmq context lives from the question to the
answer, so that there is nothing for a fork to inherit, for Ctrl-C to leave half done, for threads
to share or for the interpreter to wait for at its exit; it costs 0.7 ms. The supervisor's death
ends a conversation at once, where zmq by itself would silently wait for the next supervisor.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable

import zmq

from .. import __version__
from ..control import Envelope, Hello, MalformedMessage, Message, Progress, Refused, decode, encode
from ..errors import SpawnyError, SupervisorUnavailable
from ..paths import Paths
from .autostart import is_socket_there

# A supervisor answers within milliseconds; a listing waits for its daemons a second or two. So long
# without a word means that it is stopped or hangs.
ANSWER_SECONDS = 10.0

# Another supervisor is another conversation. (libzmq's own "never", -1, makes it drop the messages
# that were not read yet when the connection ends: a last answer could be lost.)
_NEVER_MILLISECONDS = 24 * 3600 * 1000

# One request per conversation, and at times the question whether the supervisor still lives.
REQUEST_ID = 1
PING_ID = 2

_CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
_LOST = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED  # the first connect failed
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class NotConnected(SupervisorUnavailable):
    """Nobody took the connection, so that the request was certainly not heard."""


class ConnectionLost(SupervisorUnavailable):
    """The supervisor ended before it answered; whether it acted on the request is not known."""


class Conversation:
    """One connection to the supervisor that runs now: it breaks with it."""

    def __init__(self, paths: Paths, answer_seconds: float) -> None:
        self._paths = paths
        self._answer_seconds = answer_seconds
        if not is_socket_there(paths):
            raise NotConnected(f"no supervisor runs at {paths.supervisor_socket}")
        self._pid = os.getpid()
        self._has_begun = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        try:
            self._socket = self._context.socket(zmq.DEALER)
            self._sockets.append(self._socket)
            self._socket.reconnect_ivl = _NEVER_MILLISECONDS
            self._monitor = self._socket.get_monitor_socket(_CONNECTED | _LOST)
            self._sockets.append(self._monitor)
            self._poller = zmq.Poller()
            self._poller.register(self._socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._socket.connect(f"ipc://{paths.supervisor_socket}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection, and whatever was not sent yet."""
        # By name: Context.destroy() knows its sockets by weak references, which are dead already
        # when the garbage collector ends an abandoned conversation, and would wait for ever. In a
        # forked child none of this does anything: the sockets are its parent's.
        for each in self._sockets:
            each.close(linger=0)
        self._context.term()

    def begun(self) -> Conversation:
        """This one, once the supervisor has taken the connection."""
        try:
            if not self._monitor.poll(math.ceil(self._answer_seconds * 1000)):
                raise self._silent(self._answer_seconds)
            self._hear_news()
        except BaseException:
            self.close()
            raise
        return self

    def _hear_news(self) -> None:
        """Of the connection; raises where that is none, or none any more."""
        # zmq_socket_monitor(3): a uint16 in the machine's order comes first. What pyzmq has to read
        # it imports asyncio, at half the price of all else that a start needs here.
        event, *_ = self._monitor.recv_multipart()
        if int.from_bytes(event[:2], sys.byteorder) == _CONNECTED:
            self._has_begun = True
        elif self._has_begun:
            raise ConnectionLost(
                f"the supervisor ended before it answered; see {self._paths.supervisor_log}"
            )
        else:
            raise NotConnected(f"no supervisor answers at {self._paths.supervisor_socket}")

    def ask(self, request: Message, silence: float) -> Message:
        """The answer to a request, within so many seconds."""
        self.send(request, REQUEST_ID)
        return self.receive(silence).message

    def ask_patiently(
        self, request: Message, progress: Callable[[str], object] | None = None
    ) -> Message:
        """The answer to a request, however long it takes, while the supervisor shows life."""
        self.send(request, REQUEST_ID)
        while True:
            envelope = self._poll(self._answer_seconds)
            if envelope is None:
                self.send(Hello(__version__), PING_ID)
                envelope = self.receive(self._answer_seconds)
            if isinstance(envelope.message, Progress):
                if progress:
                    progress(envelope.message.detail)
            elif envelope.request_id == REQUEST_ID:
                return envelope.message

    def send(self, message: Message, request_id: int) -> None:
        """Send, or rather hand to zmq."""
        self._socket.send_multipart(encode(message, request_id))

    def receive(self, silence: float | None) -> Envelope:
        """The next message; raises what it refuses, or an error after so long a silence."""
        envelope = self._poll(silence)
        if envelope is None:
            assert silence is not None
            raise self._silent(silence)
        return envelope

    def wait_lost(self, seconds: float) -> None:
        """Return when the supervisor has closed its side, or after so many seconds."""
        self._monitor.poll(math.ceil(seconds * 1000))

    def _poll(self, seconds: float | None) -> Envelope | None:
        """The next message, None when there is none within so many seconds."""
        if os.getpid() != self._pid:
            raise SpawnyError("events() was called before a fork: call it again in this process")
        while True:
            limit = seconds if self._has_begun else self._answer_seconds
            ready = dict(self._poller.poll(None if limit is None else math.ceil(limit * 1000)))
            if not ready and not self._has_begun:
                raise self._silent(self._answer_seconds)
            if not ready:
                return None
            # Looked at twice: an answer and the end may both come between the poll's two looks.
            if self._socket in ready or self._socket.poll(0):
                break
            self._hear_news()
        try:
            envelope = decode(self._socket.recv_multipart())
        except MalformedMessage as error:
            raise SpawnyError(f"the supervisor's answer makes no sense: {error}") from error
        if isinstance(envelope.message, Refused):
            raise envelope.message.exception()
        return envelope

    def _silent(self, seconds: float) -> SupervisorUnavailable:
        return SupervisorUnavailable(
            f"the supervisor has not answered for {seconds:g} s: it is stopped or hangs; see"
            f" {self._paths.supervisor_log}. Its daemons outlive it when you end it"
        )
