"""Links with real connections."""

import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spawny.kernel import link as codec
from spawny.supervisor import events, links, proctable
from spawny.supervisor.links import Links
from spawny.supervisor.values import Busy, CallFigures
from spawny.supervisor.watch import Watch
from tests.supervisor.world import definition

HELLO: dict[str, Any] = {
    "type": "hello",
    "link": codec.PROTOCOL,
    "name": "etl",
    "token": "t1",
    "pid": os.getpid(),
    "executable": sys.executable,
    "version": [3, 11, 7],
    "implementation": "cpython",
    "state": "new",
    "clients": 0,
    "calls": 0,
}


class Daemons:
    """The links under test, and this process in the part of a daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watch = Watch()
        self.links = Links(path, self.watch)
        self.daemon = self.connect()

    def connect(self) -> socket.socket:
        daemon = socket.socket(socket.AF_UNIX)
        daemon.settimeout(30)
        daemon.connect(str(self.path))
        self.turn()
        return daemon

    def turn(self) -> list[events.Event]:
        """Serve what is ready now."""
        return [
            event
            for fd, is_writable in self.watch.ready().items()
            for event in self.links.advance(fd, is_writable=is_writable)
        ]

    def say(self, header: dict[str, Any]) -> list[events.Event]:
        self.daemon.sendall(codec.encode(header))
        return self.turn()

    def hear(self, decoder: codec.Decoder) -> list[tuple[dict[str, Any], bytes]]:
        frames: list[tuple[dict[str, Any], bytes]] = decoder.feed(self.daemon.recv(1 << 20))
        return frames


@pytest.fixture
def daemons(home: Path) -> Iterator[Daemons]:
    daemons = Daemons(home / "link.sock")
    yield daemons
    daemons.daemon.close()
    daemons.links.close_all()
    daemons.watch.close()


PONG = {"type": "pong", "clients": 0, "calls": 0, "busy": None}


def test_only_the_owner_can_connect(daemons: Daemons) -> None:
    """The file's mode says so; whoever gets past it is asked for by uid."""
    assert stat.S_IMODE(daemons.path.stat().st_mode) == 0o600


def test_a_hello_becomes_an_event(daemons: Daemons) -> None:
    """With the process and the interpreter looked up."""
    (event,) = daemons.say(HELLO)
    assert isinstance(event, events.DaemonHello)
    assert (event.name, event.token, event.state) == ("etl", "t1", "new")
    assert event.identity == proctable.identify(os.getpid())
    assert event.interpreter.executable == sys.executable
    assert event.version == "cpython 3.11.7"


@pytest.mark.parametrize(
    ("header", "event"),
    [
        ({"type": "ready", "seconds": 1.5}, events.DefinitionLoaded(1)),
        (
            {"type": "failed", "error": "ValueError: x", "traceback": "..."},
            events.DefinitionFailed(1, "ValueError: x", "..."),
        ),
        ({"type": "clients", "clients": 3}, events.ClientsChanged(1, 3)),
        (
            {"type": "pong", "id": 0, "clients": 1, "calls": 9, "busy": None},
            events.PongReceived(1, 1, 9, None),
        ),
        (
            {
                "type": "pong",
                "id": 0,
                "clients": 1,
                "calls": 9,
                "busy": {"call": 4, "what": "fit()", "client_pid": 77, "seconds": 1},
            },
            events.PongReceived(1, 1, 9, Busy("fit()", 77, 1.0, call=4)),
        ),
        (
            {"type": "ending", "reason": "max_age", "recycled": True, "saved": True, "token": "t"},
            events.EndingAnnounced(1, "max_age", recycled=True, saved=True, token="t"),
        ),
        ({"type": "saving"}, events.SavingBegan(1)),
        (
            {"type": "kept", "token": "t", "error": "ValueError: no", "traceback": "T"},
            events.RecycleRefused(1, "t", "ValueError: no", "T"),
        ),
        ({"type": "limit", "calls": 2**40}, events.LimitReached(1, 2**40)),
        (
            {"type": "long", "connection": 2, "call": 3, "what": "f()", "seconds": 0.5},
            events.CallRunsLong(1, 2, 3, "f()", 0.5),
        ),
        (
            {
                "type": "pong",
                "clients": 0,
                "calls": 0,
                "busy": {"what": "its definition", "client_pid": None, "seconds": 0.5},
            },
            events.PongReceived(1, 0, 0, Busy("its definition", None, 0.5)),
        ),
        (
            {**PONG, "figures": {"failed": 4, "durations": [[-3, 7], [2, 1]]}},
            events.PongReceived(1, 0, 0, None, CallFigures(4, ((-3, 7), (2, 1)))),
        ),
        ({"type": "interrupted", "id": 5, "done": True}, events.CallInterrupted(1, 5, True)),
        ({"type": "interrupted", "id": 5, "done": False}, events.CallInterrupted(1, 5, False)),
        ({"type": "ending", "reason": "idle"}, events.EndingAnnounced(1, "idle")),
        (
            {"type": "ending", "reason": "r", "recycled": True, "saved": True, "token": "t"},
            events.EndingAnnounced(1, "r", recycled=True, saved=True, token="t"),
        ),
    ],
)
def test_every_report_becomes_its_event(
    daemons: Daemons, header: dict[str, Any], event: events.Event
) -> None:
    """On the link that it came by."""
    assert daemons.say(header) == [event]


@pytest.mark.parametrize(
    "header",
    [
        {"type": "explode"},
        {"type": "ready!"},
        {**HELLO, "link": 99},
        {**HELLO, "link": [1]},
        {**HELLO, "name": "../x"},
        {**HELLO, "name": None},
        {**HELLO, "pid": "1"},
        {**HELLO, "pid": -1},
        {**HELLO, "pid": 2**64},
        {**HELLO, "pid": True},
        {**HELLO, "version": "3.11"},
        {**HELLO, "version": ["3"]},
        {**HELLO, "state": "dancing"},
        {**HELLO, "executable": "a\0b"},
        {"type": "failed"},
        {"type": "clients", "clients": 1.5},
        {"type": "pong", "clients": 0, "calls": 0, "busy": 7},
        {**PONG, "drift": "numpy"},
        {**PONG, "drift": [7]},
        {"type": "pong", "clients": 0, "calls": 0, "busy": {"what": "x", "client_pid": "1"}},
        {"type": "pong", "clients": 0, "calls": 0, "busy": {"what": "x", "seconds": -1}},
        {"type": "pong", "clients": 0, "calls": 0, "busy": {"what": "x", "seconds": None}},
        {**PONG, "figures": {"failed": 1}},
        {**PONG, "figures": {"failed": -1, "durations": []}},
        {**PONG, "figures": {"failed": 0, "durations": [[1]]}},
        {**PONG, "figures": {"failed": 0, "durations": [[200, 1]]}},
        {**PONG, "figures": {"failed": 0, "durations": [[1, -1]]}},
        {**PONG, "figures": {"failed": 0, "durations": [["1", 1]]}},
        {"type": "interrupted", "id": None, "done": True},
        {"type": "ending"},
    ],
)
def test_nonsense_costs_the_connection(
    daemons: Daemons, caplog: pytest.LogCaptureFixture, header: dict[str, Any]
) -> None:
    """With one line in the log; what came before it counts, and others are served."""
    daemons.daemon.sendall(codec.encode({"type": "clients", "clients": 2}))
    assert daemons.say(header) == [events.ClientsChanged(1, 2), events.LinkLost(1)]
    assert daemons.daemon.recv(1) == b""
    (record,) = caplog.records
    assert "closed a link" in record.getMessage()
    daemons.daemon = daemons.connect()
    assert len(daemons.say(HELLO)) == 1


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(min_size=1, max_size=100))
def test_garbage_raises_nothing(daemons: Daemons, garbage: bytes) -> None:
    """Whatever bytes come, at most the connection ends."""
    with daemons.connect() as daemon:
        daemon.sendall(garbage)
        lost = daemons.turn()
    assert lost or daemons.turn()


def test_no_process_speaks_for_another(daemons: Daemons, caplog: pytest.LogCaptureFixture) -> None:
    """A hello that names another process than the one at the other end costs the connection: the
    supervisor would signal that process, and its descendants, in place of the daemon."""
    assert daemons.say({**HELLO, "pid": 1}) == [events.LinkLost(1)]
    assert f"process {os.getpid()} says it is daemon 'etl' of pid 1" in caplog.text


def test_a_blob_is_not_for_us(daemons: Daemons) -> None:
    """A daemon that announces a gigabyte is cut off before it comes."""
    daemons.daemon.sendall(struct.pack("!II", 20, 1 << 30))
    assert daemons.turn() == [events.LinkLost(1)]


def test_a_lost_link_is_told_once(daemons: Daemons) -> None:
    """After what the daemon said last."""
    daemons.daemon.sendall(codec.encode({"type": "ending", "reason": "idle"}))
    daemons.daemon.close()
    assert daemons.turn() == [events.EndingAnnounced(1, "idle"), events.LinkLost(1)]
    assert daemons.turn() == []
    assert daemons.links.drain(1) == []
    assert daemons.links.advance(99, is_writable=False) == []


def test_a_connection_that_is_reset(daemons: Daemons) -> None:
    """The daemon died with something unread."""
    daemons.links.send(1, {"type": "ping", "id": 0})
    daemons.daemon.close()
    assert daemons.turn() == [events.LinkLost(1)]


def test_draining_hears_the_last_words(daemons: Daemons) -> None:
    """What a dead daemon has said is read before its end is told."""
    daemons.daemon.sendall(codec.encode({"type": "ending", "reason": "idle"}))
    assert daemons.links.drain(1) == [events.EndingAnnounced(1, "idle")]


def test_a_definition_arrives_whole(daemons: Daemons) -> None:
    """Sixty megabytes, through a socket that takes some hundred kilobytes at once."""
    blob = os.urandom(1024) * 60_000
    daemons.links.send(1, links.load(definition()), blob)
    daemons.links.send(1, {"type": "ping", "id": 0})
    assert daemons.watch.writes(daemons.links._connections[1].socket.fileno())
    decoder = codec.Decoder()
    frames: list[tuple[dict[str, Any], bytes]] = []
    while len(frames) < 1:
        daemons.turn()
        frames += daemons.hear(decoder)
    (header, received), *_ = frames
    assert received == blob
    assert header == {
        "type": "load",
        "sys_path": [],
        "digest": "d1",
        "summary": "script d1",
        "idle_timeout": None,
        "output": "forward",
        "preload": [],
        "max_calls": None,
        "call_deadline": None,
        "restore": "",
    }


def test_a_daemon_that_does_not_read_costs_no_memory(
    daemons: Daemons, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond a megabyte it is told nothing more, and the link stays."""
    for _ in range(3000):
        daemons.links.send(1, {"type": "stop", "reason": "x" * 1000})
    unsent = daemons.links._connections[1].unsent
    assert sum(map(len, unsent)) < 2 * 1024 * 1024
    assert "does not read" in caplog.text
    assert len(daemons.say(HELLO)) == 1


def test_a_link_that_is_gone_takes_no_message(daemons: Daemons) -> None:
    """Nor does closing it twice matter."""
    daemons.links.close(1)
    daemons.links.close(1)
    daemons.links.send(1, {"type": "ping", "id": 0})
    assert daemons.daemon.recv(1) == b""


def test_a_listener_that_cannot_accept(daemons: Daemons, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever knocked has gone again: there is nothing to accept."""
    listener = daemons.links.listener.fileno()
    assert daemons.links.advance(listener, is_writable=False) == []
    assert "could not accept" in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_refused(daemons: Daemons, caplog: pytest.LogCaptureFixture) -> None:
    """Even where the file system lets them through."""
    daemons.path.parent.chmod(0o755)
    daemons.path.chmod(0o777)
    knock = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX);"
        " s.connect(sys.argv[1]); print(flush=True); print(s.recv(1))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", knock, str(daemons.path)], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    daemons.turn()
    out, _ = other.communicate()
    assert out == b"b''\n"
    assert "refused a link of uid 12345" in caplog.text
