"""A supervisor and daemons that run, and get one wrong input after the other on their sockets.

Whatever comes, they close a connection or refuse, and serve on: an honest peer is answered after
every few inputs, nobody is left attached, and neither descriptors nor memory have grown at the end.
"""

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq

import spawny
from spawny import control
from spawny.errors import VersionMismatch
from spawny.kernel import wire
from spawny.paths import locate
from tests.fuzz.mutation import Mutator
from tests.fuzz.samples import FIRST, REQUEST, REQUESTS, call_frame, control_frames, link_bytes
from tests.kernel.bare import Daemon, Peer, bare_daemon

# An honest peer asks so often.
CHECK_EVERY = 100

# The allocator's ease, PyPy's above all; a leak of ten kilobytes an input is many times that.
GROWTH_LIMIT_BYTES = 64 * 1024 * 1024

PATIENCE_SECONDS = 20.0


class Vitals:
    """What a process holds, compared with what it held when this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return len(os.listdir(f"/proc/{self._pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE")

    def check(self, ask: Callable[[], object]) -> None:
        """Raise where it has grown; `ask` is a round trip, for what is closed a moment later."""
        fds, rss = self._before
        for _ in range(1000):
            ask()
            fds_now, rss_now = self._now()
            if fds_now <= fds:
                break
        assert fds_now <= fds, f"{fds_now} descriptors, {fds} before"
        assert rss_now - rss < GROWTH_LIMIT_BYTES, f"{rss_now} bytes resident, {rss} before"


# --- the supervisor ----------------------------------------------------------------------------


class LiveSupervisor:
    """The supervisor of the current SPAWNY_HOME, with one honest daemon."""

    def __init__(self, rng: random.Random) -> None:
        self._mutator = Mutator(rng)
        self._paths = locate()
        self._count = 0
        self._supervisor = spawny.connect()
        self.pid = self._supervisor.version().pid
        self._context = zmq.Context()
        for _ in range(50):  # the first of a kind of refusal loads and compiles what it needs
            self.control()
            self.link()
        self._check()
        self._vitals = Vitals(self.pid)

    def close(self) -> None:
        self._check()
        self._context.destroy(linger=0)
        self._vitals.check(self._check)

    def control(self) -> None:
        """Some messages over one connection of zmq, then an honest one, which is answered."""
        dealer = self._context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(f"ipc://{self._paths.supervisor_socket}")
        for _ in range(5):
            frames = control_frames(self._mutator, REQUESTS)
            if frames and not _starts_something(frames):
                dealer.send_multipart(frames)
        dealer.send_multipart(control.encode(control.Hello("3"), 7))
        while True:
            assert dealer.poll(PATIENCE_SECONDS * 1000), "the supervisor does not answer"
            if control.decode(dealer.recv_multipart()).request_id == 7:
                break
        dealer.close()
        self._served()

    def greeting(self) -> None:
        """Bytes that are no ZMTP, or begin as if they were."""
        rng = self._mutator.rng
        valid = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48) + b"\x04\x19\x05READY" * 2
        with suppress(ConnectionError), _connected(self._paths.supervisor_socket) as sock:
            sock.send(self._mutator.bytes(valid), socket.MSG_NOSIGNAL)
            if rng.random() < 0.1:
                _slam(sock)
        self._served()

    def link(self) -> None:
        """Bytes of a link: what is wrong closes it."""
        data = link_bytes(self._mutator)
        if b'"pid":%d' % os.getpid() in data:
            return  # whoever truly is what it says is taken for a daemon, and ended as such
        with suppress(ConnectionError), _connected(self._paths.link_socket) as sock:
            sock.send(data, socket.MSG_NOSIGNAL)
            if self._mutator.rng.random() < 0.1:
                _slam(sock)
        self._served()

    def _served(self) -> None:
        self._count += 1
        if self._count % CHECK_EVERY == 0:
            self._check()

    def _check(self) -> None:
        assert self._supervisor.version().pid == self.pid, "the supervisor has died"


def _starts_something(frames: list[bytes]) -> bool:
    try:
        message = control.decode(frames).message
    except (control.MalformedMessage, VersionMismatch):
        return False
    if isinstance(message, control.StartDaemon):
        return os.path.exists(os.path.join(message.cwd, message.python)) or len(message.python) < 9
    return isinstance(message, control.Shutdown)


# --- a daemon ----------------------------------------------------------------------------------

_SCRIPT = """
variable = 0
def echo(*args, **kwargs):
    return args
def collect():
    import gc
    gc.collect()
"""


class LiveDaemon:
    """A kernel by itself; this process is its supervisor and all of its clients."""

    def __init__(self, daemon: Daemon, rng: random.Random) -> None:
        self._mutator = Mutator(rng)
        self._daemon = daemon
        self._count = 0
        daemon.load(_SCRIPT)
        daemon.link.expect("ready")
        for _ in range(50):
            self.first()
            self.request()
        self._check()
        self._vitals = Vitals(daemon.process.pid)

    def close(self) -> None:
        self._vitals.check(self._check)

    def first(self) -> None:
        """What begins a connection."""
        with suppress(ConnectionError), _connected(self._daemon.call_path) as sock:
            sock.send(call_frame(self._mutator, FIRST), socket.MSG_NOSIGNAL)
            if self._mutator.rng.random() < 0.5:
                _drain(sock)
        self._served()

    def request(self) -> None:
        """Requests on a connection that has begun as it should."""
        rng = self._mutator.rng
        try:
            peer = Peer(self._daemon.call_path)
            with peer.sock as sock:
                role = wire.ROLE_EVENTS if rng.random() < 0.1 else wire.ROLE_CALLS
                peer.hello(f"fuzz{rng.random()}", role)
                frames = [call_frame(self._mutator, REQUEST) for _ in range(rng.randrange(1, 6))]
                sock.send(b"".join(frames), socket.MSG_NOSIGNAL)
                if rng.random() < 0.5:
                    _drain(sock)
        except ConnectionError:
            pass
        self._served()

    def _served(self) -> None:
        self._count += 1
        if self._count % CHECK_EVERY == 0:
            self._check()

    def _check(self) -> None:
        """An honest client is answered, and once it has left nobody is attached."""
        link = self._daemon.link
        peer = Peer(self._daemon.call_path)
        with peer.sock:
            peer.hello("honest")
            kind, value = peer.ask(wire.METHOD, 0, "echo", (1,), {})
            assert (kind, value) == (wire.VALUE, (1,)), (kind, value)
            # PyPy's collector lets hundreds of megabytes of garbage lie where it has the room.
            assert peer.ask(wire.METHOD, 0, "collect", (), {})[0] == wire.VALUE
        for number in range(1000):
            link.send("ping", id=number)
            pong = link.expect("pong")
            if not pong["clients"]:
                return
        raise AssertionError(f"{pong['clients']} clients are still attached")


@contextmanager
def daemon_target(python: str, rng: random.Random) -> Iterator[LiveDaemon]:
    with bare_daemon(python) as daemon:
        try:
            target = LiveDaemon(daemon, rng)
            yield target
            target.close()
        except (AssertionError, OSError, EOFError) as error:
            error.add_note(f"exit code {daemon.process.poll()}, log:\n{_log_of(daemon)}")
            with suppress(AssertionError, OSError):
                daemon.link.send("stacks", id=0)
                error.add_note(daemon.link.expect("stacks")["text"])
            raise


def _log_of(daemon: Daemon) -> str:
    return daemon.log.read_text(errors="replace")[-3000:]


# --- sockets -----------------------------------------------------------------------------------


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))  # waits while the backlog is full, which one with a timeout does not
    sock.settimeout(PATIENCE_SECONDS)
    return sock


def _slam(sock: socket.socket) -> None:
    """The next close throws away what was not read, as that of a process that is killed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _drain(sock: socket.socket) -> None:
    """Say no more, and read until the other end has closed."""
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass
