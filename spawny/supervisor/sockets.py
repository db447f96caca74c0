"""The control plane's socket: ZeroMQ frames in, validated messages out.

One rule: nothing that a client sends raises here. What cannot be decoded is refused to its sender.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import zmq

from .. import control
from ..errors import VersionMismatch
from ..kernel.listener import bound
from .values import Caller
from .watch import Watch

logger = logging.getLogger(__name__)

# As many messages may wait for a client that does not read; a watcher that is slower than that is
# sent no more.
SEND_QUEUE_MESSAGES = 1000

# Between two looks at anything else, so that a flood of requests cannot starve the daemons.
_BATCH_MESSAGES = 100

# Answers are on their way when a supervisor ends: so long it waits for them to be read.
_LINGER_MILLISECONDS = 1000

# A client may ask for a timeout of years, which does not fit what poll() takes.
_LONGEST_WAIT_SECONDS = 3600.0


class Outcome(Enum):
    """What became of a message."""

    SENT = "sent"
    GONE = "gone"  # the client has disconnected
    FULL = "full"  # it does not read


@dataclass(frozen=True, slots=True)
class Received:
    """A request, and who made it."""

    caller: Caller
    message: control.Message


def listen(path: Path) -> socket.socket:
    """A listening unix socket that only this user can reach; whoever calls holds the lock."""
    path.unlink(missing_ok=True)
    listener: socket.socket = bound(os.fspath(path))
    listener.listen(socket.SOMAXCONN)
    listener.setblocking(False)
    return listener


class ControlSocket:
    """A ROUTER on a listening socket that is bound already; it takes the socket over."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self._path = path
        self._open(listener)

    def _open(self, listener: socket.socket) -> None:
        # What zmq gets, zmq closes; this one is for an upgrade.
        self._kept = listener.dup()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        # Left to itself, libzmq would unlink the path and bind it again, so that two servers could
        # take turns; given a descriptor, it only accepts.
        self._router.setsockopt(zmq.USE_FD, listener.detach())
        self._router.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        # An unroutable or overfull peer is an error that we see, not a message that is lost.
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        self._router.setsockopt(zmq.MAXMSGSIZE, control.FRAME_LIMIT_BYTES)
        self._router.setsockopt(zmq.LINGER, _LINGER_MILLISECONDS)
        self._router.bind(f"ipc://{self._path}")

    def wait(self, watch: Watch, seconds: float | None) -> tuple[bool, Mapping[int, bool]]:
        """Wait until a request or a watched descriptor is ready, or the time is over.

        Answers whether requests are there, and what is ready of the descriptors.
        """
        # Rounded up: a wait that ends just before its deadline would be followed by one of 0.
        milliseconds = -1
        if seconds is not None:
            milliseconds = math.ceil(1000 * min(seconds, _LONGEST_WAIT_SECONDS))
        both: list[Any] = [(self._router, zmq.POLLIN), (watch.fileno(), zmq.POLLIN)]
        ready: dict[Any, int] = dict(zmq.zmq_poll(both, milliseconds))
        return self._router in ready, watch.ready() if watch.fileno() in ready else {}

    def receive(self) -> Iterator[Received]:
        """The requests that are there, up to a number."""
        for _ in range(_BATCH_MESSAGES):
            try:
                client, *frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                envelope = control.decode(frames)
            except (control.MalformedMessage, VersionMismatch) as error:
                self._refuse(Caller(client, control.peek_request_id(frames)), error)
            else:
                yield Received(Caller(client, envelope.request_id), envelope.message)

    def _refuse(self, caller: Caller, error: Exception) -> None:
        logger.warning("refused a message: %s", error)
        kind = "VersionMismatch" if isinstance(error, VersionMismatch) else "InvalidRequest"
        self.send(caller, control.Refused(kind, str(error)))

    def send(self, caller: Caller, message: control.Message) -> Outcome:
        """Send a message without waiting."""
        frames = control.encode(message, caller.request_id)
        try:
            self._router.send_multipart([caller.client, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return Outcome.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return Outcome.GONE
        return Outcome.SENT

    def close(self) -> None:
        """Give the last answers a moment to leave, and close."""
        self._close_connections()
        self._kept.close()

    def _close_connections(self) -> None:
        self._router.close()
        self._context.term()

    def listen_also(self, listener: socket.socket) -> None:
        """Accept at this socket, too; it is the one for an upgrade from now on.

        The one before was removed, and nobody finds it any more; libzmq closes it only together
        with the connections that came by it.
        """
        self._kept.close()
        self._kept = listener.dup()
        self._router.setsockopt(zmq.USE_FD, listener.detach())
        self._router.bind(f"ipc://{self._path}")

    def suspend(self) -> socket.socket:
        """Close every connection, when the last answers have left; the listening socket, in whose
        backlog clients wait."""
        self._close_connections()
        return self._kept

    def resume(self) -> None:
        """Serve again after `suspend`."""
        self._open(self._kept)
