"""The links: connections of daemons, bytes in, events out.

One rule: nothing here ever waits, and nothing a daemon sends raises: it costs its connection.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__, control
from ..kernel import link as codec
from ..paths import NAME_PATTERN
from . import descriptors, events, interpreters, proctable
from .sockets import listen
from .values import NO_CALLS, Busy, CallFigures
from .watch import Watch

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024

# Daemons outlive the supervisor that started them: every version that was ever released is known.
KNOWN_PROTOCOLS = frozenset({1})

# What daemons send is small, and cut by themselves; only what we send carries a blob.
_BLOB_LIMIT_BYTES = 0

# Of the fourth power of a time in seconds, the exponent: 2^32 s are more than any.
_BUCKETS = 128

# A daemon that does not read (it is stopped) is pinged once; what piles up beyond this much, a
# definition apart, is somebody asking to interrupt it over and over.
_UNSENT_LIMIT_BYTES = 1024 * 1024

# When no link can be accepted for want of descriptors.
ACCEPT_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Connection:
    number: int
    socket: socket.socket
    peer_pid: int | None  # as the operating system says; None where it does not
    decoder: codec.Decoder = field(default_factory=lambda: codec.Decoder(_BLOB_LIMIT_BYTES))
    unsent: deque[memoryview] = field(default_factory=deque)


class Links:
    """Listens for daemons that phone home, and talks with them.

    Connections are told apart by a number that is never used again.
    """

    def __init__(self, path: Path, watch: Watch, listener: socket.socket | None = None) -> None:
        self._listener = listener or listen(path)
        self._watch = watch
        watch.put(self._listener.fileno())
        self._connections: dict[int, _Connection] = {}
        self._numbers: dict[int, int] = {}  # by descriptor
        self._last_number = 0
        self._accepts_again_at: float | None = None

    @property
    def listener(self) -> socket.socket:
        """Where daemons connect."""
        return self._listener

    @property
    def accepts_again_at(self) -> float | None:
        """When to `accept_again`; None: it listens."""
        return self._accepts_again_at

    def accept_again(self) -> None:
        """Listen once more, if it is time."""
        if self._accepts_again_at is not None and time.monotonic() >= self._accepts_again_at:
            self._accepts_again_at = None
            self._watch.put(self._listener.fileno())

    def advance(self, fd: int, *, is_writable: bool) -> list[events.Event]:
        """Do what can be done at a descriptor that is ready."""
        if fd == self._listener.fileno():
            accepted = self._accept()
            # It says hello at once, as a rule.
            return [] if accepted is None else self._receive(accepted)
        connection = self._connections.get(self._numbers.get(fd, 0))
        if connection is None:
            return []
        if is_writable:
            self._flush(connection)
        return self._receive(connection)

    def drain(self, number: int) -> list[events.Event]:
        """Everything that a daemon has said; for one that is dead, so that nothing follows."""
        connection = self._connections.get(number)
        return [] if connection is None else self._receive(connection)

    def _accept(self) -> _Connection | None:
        try:
            accepted, _ = self._listener.accept()
            accepted = socket.socket(fileno=descriptors.put_away(accepted.detach()))
        except OSError as error:  # the daemon has gone again, or there are too many descriptors
            logger.warning("could not accept a link: %s", error)
            if descriptors.are_exhausted(error):
                # The knock may still be there, and would wake us again and again.
                self._accepts_again_at = time.monotonic() + ACCEPT_AGAIN_SECONDS
                self._watch.drop(self._listener.fileno())
            return None
        pid, uid = _peer_of(accepted)
        if uid != os.getuid():
            logger.warning("refused a link of uid %d", uid)
            accepted.close()
            return None
        accepted.setblocking(False)
        self._last_number += 1
        connection = _Connection(self._last_number, accepted, pid)
        self._connections[self._last_number] = connection
        self._numbers[accepted.fileno()] = self._last_number
        self._watch.put(accepted.fileno())
        return connection

    def _receive(self, connection: _Connection) -> list[events.Event]:
        heard: list[events.Event] = []
        try:
            # As long as it says something; it cannot go on for ever, since it waits for pings.
            while data := connection.socket.recv(_RECEIVE_BYTES):
                for header, _blob in connection.decoder.feed(data):
                    event = _parse(connection.number, header)
                    _check_speaker(event, connection.peer_pid)
                    heard.append(event)
        except BlockingIOError:
            return heard
        except ValueError as error:  # LinkError, or a path that cannot be one
            logger.warning("closed a link: %s", error)
        except OSError as error:
            logger.info("lost a link: %s", error)
        self.close(connection.number)
        return [*heard, events.LinkLost(connection.number)]

    def send(self, number: int, header: dict[str, Any], blob: bytes = b"") -> None:
        """Send a message, now or as soon as the daemon reads; nothing where the link is gone."""
        connection = self._connections.get(number)
        if connection is None:
            return
        if not blob and sum(map(len, connection.unsent)) > _UNSENT_LIMIT_BYTES:
            logger.warning("a daemon does not read what it is told")
            return
        connection.unsent.append(memoryview(codec.encode(header, blob)))
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        unsent = connection.unsent
        # Whatever ends this but a full buffer, the next read finds as well and reports.
        with suppress(OSError):
            while unsent:
                sent = connection.socket.send(unsent[0], socket.MSG_NOSIGNAL)
                unsent[0] = unsent[0][sent:]
                if not unsent[0]:
                    unsent.popleft()
        self._watch.put(connection.socket.fileno(), writes=bool(unsent))

    def close(self, number: int) -> None:
        """Drop a connection."""
        connection = self._connections.pop(number, None)
        if connection is not None:
            del self._numbers[connection.socket.fileno()]
            self._watch.drop(connection.socket.fileno())
            connection.socket.close()

    def listen_again(self, path: Path) -> None:
        """Listen at this path, where the socket has vanished; links that are up go on."""
        self._watch.drop(self._listener.fileno())
        self._listener.close()
        self._listener = listen(path)
        self._watch.put(self._listener.fileno())

    def close_all(self) -> None:
        for number in list(self._connections):
            self.close(number)
        self._watch.drop(self._listener.fileno())
        self._listener.close()


def _peer_of(connection: socket.socket) -> tuple[int | None, int]:
    """The process and the user at the other end, as the operating system knows them."""
    if hasattr(socket, "SO_PEERCRED"):
        layout = struct.Struct("3i")  # struct ucred: pid, uid, gid
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
        pid, uid, _gid = layout.unpack(found)
        return pid, uid
    # LOCAL_PEERCRED of the BSDs and macOS: struct xucred begins with its version and the uid.
    xucred = connection.getsockopt(0, 1, 76)
    return None, int(struct.unpack_from("II", xucred)[1])


def _check_speaker(event: events.Event, peer_pid: int | None) -> None:
    """Raise `LinkError` where one process says that it is another: what it is said to be is what
    will be signalled, with all of its descendants, and pid 1 has every process of the machine."""
    if not isinstance(event, events.DaemonHello) or event.identity is None or peer_pid is None:
        return
    if event.identity.pid != peer_pid:
        raise codec.LinkError(
            f"process {peer_pid} says it is daemon {event.name!r} of pid {event.identity.pid}"
        )


# --- what daemons say ---------------------------------------------------------------------------


def _parse(link: int, header: dict[str, Any]) -> events.Event:
    """The event that a header tells of; raises `LinkError` where it tells of none."""
    parse = _PARSERS.get(header["type"])
    if parse is None:
        raise codec.LinkError(f"a daemon says {str(header['type'])[:80]!r}, which means nothing")
    return parse(link, header)


def _parse_hello(link: int, header: dict[str, Any]) -> events.Event:
    name, state = _text(header, "name"), _text(header, "state")
    if (protocol := _number(header, "link")) not in KNOWN_PROTOCOLS:
        raise codec.LinkError(
            f"daemon {name!r} speaks link protocol {protocol}, which spawny"
            f" {__version__} does not know: spawny supervisor upgrade, run from a newer one"
        )
    if not NAME_PATTERN.match(name):
        raise codec.LinkError(f"{name!r} cannot name a daemon")
    if state not in ("new", "loading", "ready", "failed"):
        raise codec.LinkError(f"daemon {name!r} says it is {state!r}")
    version = header.get("version")
    if not isinstance(version, list) or not all(isinstance(each, int) for each in version):
        raise codec.LinkError(f"daemon {name!r} has version {version!r}")
    implementation = _text(header, "implementation")
    return events.DaemonHello(
        link=link,
        name=name,
        token=_text(header, "token"),
        identity=proctable.identify(_number(header, "pid")),
        interpreter=interpreters.describe(_text(header, "executable")),
        version=f"{implementation} {'.'.join(map(str, version))}",
        state=state,  # type: ignore[arg-type]  # checked above
        clients=_number(header, "clients"),
        calls=_count(header, "calls"),
    )


def _parse_pong(link: int, header: dict[str, Any]) -> events.Event:
    busy = header.get("busy")
    if busy is not None and not isinstance(busy, dict):
        raise codec.LinkError("a daemon is busy in no known way")
    return events.PongReceived(
        link,
        clients=_number(header, "clients"),
        calls=_count(header, "calls"),
        busy=None
        if busy is None
        else Busy(
            _text(busy, "what"),
            _number(busy, "client_pid") if busy.get("client_pid") is not None else None,
            _seconds(busy),
            connection=_count(busy, "connection") if "connection" in busy else 0,
            call=_count(busy, "call") if "call" in busy else 0,
        ),
        figures=_figures(header.get("figures")),
        drift=_drift(header.get("drift", [])),
    )


def _figures(told: object) -> CallFigures:
    if not isinstance(told, dict):
        return NO_CALLS  # of an older daemon
    durations = told.get("durations")
    if not isinstance(durations, list):
        raise codec.LinkError("a daemon's calls took no known time")
    return CallFigures(_number(told, "failed"), tuple(map(_bucket, durations)))


def _bucket(pair: object) -> tuple[int, int]:
    match pair:
        case [int(bucket), int(count)] if -_BUCKETS <= bucket <= _BUCKETS and count >= 0:
            return bucket, count
    raise codec.LinkError(f"{str(pair)[:80]!r} counts no calls")


def _drift(told: object) -> tuple[str, ...]:
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise codec.LinkError("a daemon has drifted in no known way")
    return tuple(told)


def _parse_interrupted(link: int, header: dict[str, Any]) -> events.Event:
    return events.CallInterrupted(link, _number(header, "id"), header.get("done") is True)


_PARSERS: dict[str, Callable[[int, dict[str, Any]], events.Event]] = {
    "hello": _parse_hello,
    "ready": lambda link, header: events.DefinitionLoaded(link),
    "failed": lambda link, header: events.DefinitionFailed(
        link, _text(header, "error"), _text(header, "traceback")
    ),
    "clients": lambda link, header: events.ClientsChanged(link, _number(header, "clients")),
    "pong": _parse_pong,
    "interrupted": _parse_interrupted,
    "stacks": lambda link, header: events.StacksDumped(
        link, _number(header, "id"), _text(header, "text")
    ),
    "ending": lambda link, header: events.EndingAnnounced(
        link,
        _text(header, "reason"),
        recycled=header.get("recycled") is True,
        saved=header.get("saved") is True,
        token=_text(header, "token") if header.get("saved") is True else "",
    ),
    "kept": lambda link, header: events.RecycleRefused(
        link, _text(header, "token"), _text(header, "error"), _text(header, "traceback")
    ),
    "saving": lambda link, header: events.SavingBegan(link),
    "limit": lambda link, header: events.LimitReached(link, _count(header, "calls")),
    "long": lambda link, header: events.CallRunsLong(
        link,
        _count(header, "connection"),
        _count(header, "call"),
        _text(header, "what"),
        _seconds(header),
    ),
}


def _text(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if not isinstance(value, str):
        raise codec.LinkError(f"{key} is {str(value)[:80]!r}, not text")
    return value


def _number(header: dict[str, Any], key: str) -> int:
    # A pid of 2^64 would raise in the operating system's functions.
    return _count(header, key, below=2**31)


def _count(header: dict[str, Any], key: str, below: int = 2**53) -> int:
    value = header.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise codec.LinkError(f"{key} is {str(value)[:80]!r}, not a number")
    return value


def _seconds(header: dict[str, Any]) -> float:
    value = header.get("seconds")
    if not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise codec.LinkError(f"seconds is {str(value)[:80]!r}")
    return float(value)


# --- what daemons are told ----------------------------------------------------------------------


def load(request: control.StartDaemon, restore: str = "") -> dict[str, Any]:
    """The header that goes with a definition; `restore` is the token of a state that was saved."""
    return {
        "type": "load",
        "sys_path": request.sys_path,
        "digest": request.digest,
        "summary": request.summary,
        "idle_timeout": request.idle_timeout,
        "output": request.output,
        "preload": request.preload,
        "max_calls": request.max_calls,
        "call_deadline": request.call_deadline,
        "restore": restore,
    }
