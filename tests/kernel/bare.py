"""A kernel by itself: a real interpreter running boot.py, with this process as its supervisor."""

import pickle
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spawny import kernel
from spawny.definitions import ScriptDefinition
from spawny.kernel import link, wire

BOOT = Path(kernel.__file__).with_name("boot.py")

# Only a failing test waits so long.
PATIENCE_SECONDS = 20


class Link:
    """The supervisor's end of the link."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = link.Decoder()
        self._frames: list[dict[str, Any]] = []

    def send(self, _type: str, _blob: bytes = b"", **fields: Any) -> None:
        self.sock.sendall(link.encode({"type": _type, **fields}, _blob))

    def load(self, script: str, **options: Any) -> None:
        payload = ScriptDefinition(script).payload()
        fields = {"sys_path": [], "digest": "d", "summary": "s", "idle_timeout": None, **options}
        self.send("load", payload, **fields)

    def expect(self, _type: str) -> dict[str, Any]:
        """The next message of this type; others before it are passed over."""
        while True:
            for index, header in enumerate(self._frames):
                if header["type"] == _type:
                    del self._frames[: index + 1]
                    return header
            data = self.sock.recv(65536)
            assert data, f"the link closed without {_type}"
            self._frames += [header for header, _ in self._decoder.feed(data)]


class Peer:
    """A client's end of one connection, spoken byte by byte."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(str(path))
        self._reader = wire.FrameReader()
        self._frames: list[tuple[int, int, bytes]] = []

    def frame(self) -> tuple[int, int, bytes]:
        """The next frame; raises EOFError at the end of the stream."""
        while not self._frames:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def send(self, kind: int, *fields: Any, flags: int = 0) -> None:
        self.sock.sendall(wire.frame(kind, pickle.dumps(fields, 4), flags))

    def ask(self, kind: int, *fields: Any, flags: int = 0) -> tuple[int, Any]:
        """(kind, unpickled body) of the answer, output passed over."""
        self.send(kind, *fields, flags=flags)
        return self.answer()

    def answer(self) -> tuple[int, Any]:
        while (frame := self.frame())[0] == wire.OUTPUT:
            pass
        return frame[0], pickle.loads(frame[2])

    def hello(self, session: str, role: str = wire.ROLE_CALLS, parent: str | None = None) -> Any:
        """Greet; for a call connection the root's reference and the connection id."""
        self.send(wire.HELLO, wire.PROTOCOL, session, role, 12345, 4, parent, False)
        if role == wire.ROLE_EVENTS:
            return None
        assert self.answer()[0] == wire.STARTED
        kind, body = self.answer()
        assert kind == wire.READY, body
        return body

    def is_closed(self) -> bool:
        """True once the other end has closed; what it still sends is passed over."""
        try:
            while True:
                self.frame()
        except (EOFError, ConnectionResetError):
            return True


class Daemon:
    def __init__(self, process: subprocess.Popen[bytes], runtime: Path, listener: socket.socket):
        self.process = process
        self.runtime = runtime
        self.listener = listener
        self.call_path = runtime / "d" / "bare.sock"
        self.log = runtime / "log"
        self.link = self.accept_link()
        self.hello = self.link.expect("hello")

    def accept_link(self) -> Link:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_SECONDS)
        return Link(sock)

    def load(self, script: str, **options: Any) -> None:
        self.link.load(script, **options)

    def peer(self, session: str = "session") -> Peer:
        """A call connection of a client that has attached."""
        peer = Peer(self.call_path)
        peer.hello(session)
        return peer


@contextmanager
def bare_daemon(python: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="sp-") as folder:
        runtime = Path(folder)
        (runtime / "d").mkdir(mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(PATIENCE_SECONDS)
        listener.bind(str(runtime / "link.sock"))
        listener.listen(8)
        with (runtime / "log").open("ab") as log:
            process = subprocess.Popen(
                [python, str(BOOT), "bare", "token", folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        daemon = None
        try:
            daemon = Daemon(process, runtime, listener)
            yield daemon
        finally:
            process.kill()
            process.wait()
            listener.close()
            if daemon is not None:
                daemon.link.sock.close()
