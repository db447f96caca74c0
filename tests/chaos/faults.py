"""What is done to the processes under test, and how it is undone.

A fault is a function that does harm and returns what undoes it. Which process it hits is drawn from
the run's seed.
"""

import errno
import os
import pickle
import random
import resource
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zmq

from spawny.client.ending import wait_gone
from spawny.kernel import wire
from spawny.paths import Paths
from tests.end_to_end.processes import Script
from tests.fuzz.live import _starts_something
from tests.fuzz.mutation import Mutator
from tests.fuzz.samples import HELLO, REQUESTS, control_frames, link_bytes

Undo = Callable[[], None]

PATIENCE_SECONDS = 30.0

# Peers that connect and say nothing, and messages of garbage.
CROWD = 20


@dataclass
class World:
    """Whom a fault may hit."""

    paths: Paths
    scratch: Path  # of the run's own, on another file system than `paths` where that is small
    rng: random.Random
    supervisor: int
    daemons: dict[str, int]
    clients: list[int]
    is_small: bool  # whether the file system of `paths` can be filled

    def pick(self, pids: dict[str, int] | list[int]) -> int | None:
        found = sorted(pids.values() if isinstance(pids, dict) else pids)
        return self.rng.choice(found) if found else None


def _nothing() -> None:
    pass


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill(pid: int | None) -> None:
    """SIGKILL, and wait for the end, so that what comes next comes after it."""
    if pid is not None:
        with wait_gone(pid) as wait:
            _signal(pid, signal.SIGKILL)
            wait(PATIENCE_SECONDS)


# --- deaths ------------------------------------------------------------------------------------


def kill_supervisor(world: World) -> Undo:
    _kill(world.supervisor)
    return _nothing


def kill_daemon(world: World) -> Undo:
    """In the middle of whatever its clients do."""
    _kill(world.pick(world.daemons))
    return _nothing


def kill_client(world: World) -> Undo:
    pid = world.pick(world.clients)
    _signal(pid, signal.SIGKILL)
    return _nothing


def kill_daemon_in_a_call(world: World) -> Undo:
    """In a call that is known to be under way; whoever made it has to be told so."""
    fifo = world.scratch / f"fifo-{world.rng.getrandbits(64):x}"
    os.mkfifo(fifo)
    with Script(
        """
        import sys, spawny
        from tests.chaos.load import shared
        daemon = shared(0)
        print("pid", spawny.daemon(daemon).pid)
        try:
            daemon.wait_for(sys.argv[1])
        except spawny.DaemonDied as error:
            print("died", error)
        """,
        str(fifo),
    ) as script:
        pid = int(script.until("pid").split()[1])
        with fifo.open("w"):
            _kill(pid)
            script.until("died")
    return _nothing


def kill_daemon_while_starting(world: World) -> Undo:
    """In its definition; whoever started it has to be told so."""
    fifo = world.scratch / f"fifo-{world.rng.getrandbits(64):x}"
    os.mkfifo(fifo)
    with Script(
        """
        import sys, spawny
        try:
            spawny.run_script(
                "import os\\nfile = open(%r, 'w')\\nfile.write(str(os.getpid()))\\nfile.close()\\n"
                "open(%r).read()" % (sys.argv[1], sys.argv[1])
            )
        except spawny.SpawnyError as error:
            print("failed", type(error).__name__)
        """,
        str(fifo),
    ) as script:
        _kill(int(fifo.read_text()))
        script.until("failed DaemonStartError")
    return _nothing


# --- standing still ----------------------------------------------------------------------------


def _stop(pid: int | None) -> Undo:
    _signal(pid, signal.SIGSTOP)
    return lambda: _signal(pid, signal.SIGCONT)


def stop_supervisor(world: World) -> Undo:
    return _stop(world.supervisor)


def stop_daemon(world: World) -> Undo:
    return _stop(world.pick(world.daemons))


def stop_client(world: World) -> Undo:
    return _stop(world.pick(world.clients))


# --- want --------------------------------------------------------------------------------------


def fill_disk(world: World) -> Undo:
    """No byte is left where sockets, journal and logs are; without a file system of that size, the
    supervisor may write no file at all."""
    if not world.is_small:
        return _limit(world.supervisor, resource.RLIMIT_FSIZE, 0)
    path = world.paths.runtime.parent / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return path.unlink


def _limit(pid: int | None, what: int, soft: int) -> Undo:
    if pid is None:
        return _nothing
    try:
        before = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (soft, before[1]))
    except ProcessLookupError:
        return _nothing

    def undo() -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)

    return undo


def _exhaust(pid: int | None) -> Undo:
    """It can open nothing more."""
    if pid is None:
        return _nothing
    try:
        highest = max(map(int, os.listdir(f"/proc/{pid}/fd")), default=0)
    except OSError:
        return _nothing
    return _limit(pid, resource.RLIMIT_NOFILE, highest + 1)


def exhaust_supervisor(world: World) -> Undo:
    return _exhaust(world.supervisor)


def exhaust_daemon(world: World) -> Undo:
    return _exhaust(world.pick(world.daemons))


# --- strangers ---------------------------------------------------------------------------------


def garbage_on_control(world: World) -> Undo:
    mutator = Mutator(world.rng)
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"ipc://{world.paths.supervisor_socket}")
    for _ in range(CROWD):
        frames = control_frames(mutator, REQUESTS)
        if frames and not _starts_something(frames):
            dealer.send_multipart(frames)
    _shout(world.paths.supervisor_socket, world.rng.randbytes(100))
    return lambda: context.destroy(linger=0)


def garbage_on_link(world: World) -> Undo:
    for _ in range(CROWD):
        _shout(world.paths.link_socket, link_bytes(Mutator(world.rng)))
    return _nothing


def garbage_on_calls(world: World) -> Undo:
    mutator = Mutator(world.rng)
    hello = wire.frame(wire.HELLO, pickle.dumps(HELLO, 2))
    for path in sorted(world.paths.daemons.glob("*.sock")):
        _shout(path, world.rng.randbytes(world.rng.randrange(1, 100)))
        _shout(path, mutator.bytes(hello))
    return _nothing


def slow_on_control(world: World) -> Undo:
    return _loiter([world.paths.supervisor_socket])


def slow_on_link(world: World) -> Undo:
    return _loiter([world.paths.link_socket])


def slow_on_calls(world: World) -> Undo:
    return _loiter(sorted(world.paths.daemons.glob("*.sock")))


def _shout(path: Path, data: bytes) -> None:
    """Say something, and slam the door."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1.0)
        sock.connect(str(path))
        sock.send(data, socket.MSG_NOSIGNAL)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _loiter(paths: list[Path]) -> Undo:
    """Connect many times, and neither read nor write."""
    open_sockets = []
    for path in paths:
        for _ in range(CROWD):
            sock = socket.socket(socket.AF_UNIX)
            open_sockets.append(sock)
            sock.setblocking(False)
            if sock.connect_ex(str(path)) in (errno.ECONNREFUSED, errno.ENOENT):
                break

    def undo() -> None:
        for each in open_sockets:
            each.close()

    return undo


FAULTS: tuple[Callable[[World], Undo], ...] = (
    kill_supervisor,
    kill_daemon,
    kill_client,
    kill_daemon_in_a_call,
    kill_daemon_while_starting,
    stop_supervisor,
    stop_daemon,
    stop_client,
    fill_disk,
    exhaust_supervisor,
    exhaust_daemon,
    garbage_on_control,
    garbage_on_link,
    garbage_on_calls,
    slow_on_control,
    slow_on_link,
    slow_on_calls,
)

# These do not touch a daemon: no call may fail for them, whatever else does.
HARMLESS_TO_CALLS = frozenset(
    (
        kill_supervisor,
        kill_client,
        kill_daemon_while_starting,
        stop_supervisor,
        stop_client,
        garbage_on_control,
        garbage_on_link,
        garbage_on_calls,
        slow_on_control,
        slow_on_link,
        slow_on_calls,
    )
)

# Errors that a start may meet all the same are no failures of a call.
CALLS = ("call", "refused", "large", "submit", "batch", "oneway")
