"""The same no-op, called in another process by each of the ways there are.

Every peer is a context manager that gives a function to call. Its other end is a fresh process
under the same interpreter (spawned, not forked, so that none inherits anything of another's).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from typing import Any

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Peer:
    """A function to call, and the process that answers."""

    noop: Callable[[], object]
    pid: int


# An rpyc server that cannot be reached within this time did not start.
RPYC_SECONDS = 20.0


class Nothing:
    """What is served."""

    def noop(self) -> None:
        """Return at once."""

    def pid(self) -> int:
        """Where this is."""
        return os.getpid()


@contextmanager
def process(target: Callable[..., object], *args: object) -> Iterator[Any]:
    """A process that ends when its peer hangs up; at the latest with this one."""
    process = SPAWN.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()


# --- the floor: a unix socket, a pickle each way, no reading ahead, no waiting but in recv -------


def _serve_socket(sock: socket.socket) -> None:
    served = Nothing()
    while data := sock.recv(65536):
        name, args, kwargs = pickle.loads(data)
        sock.sendall(pickle.dumps(getattr(served, name)(*args, **kwargs), pickle.HIGHEST_PROTOCOL))


@contextmanager
def bare_socket() -> Iterator[Peer]:
    ours, theirs = socket.socketpair()

    def noop() -> object:
        ours.sendall(pickle.dumps(("noop", (), {}), pickle.HIGHEST_PROTOCOL))
        return pickle.loads(ours.recv(65536))

    with process(_serve_socket, theirs) as server:
        theirs.close()
        yield Peer(noop, server.pid)
        ours.close()


def _serve_pipe(connection: Connection) -> None:
    while True:
        try:
            connection.send(connection.recv())
        except EOFError:
            return


@contextmanager
def pipe() -> Iterator[Peer]:
    ours, theirs = SPAWN.Pipe()

    def noop() -> object:
        ours.send(None)
        return ours.recv()

    with process(_serve_pipe, theirs) as server:
        theirs.close()
        yield Peer(noop, server.pid)
        ours.close()


class _NothingManager(BaseManager):
    pass


_NothingManager.register("Nothing", Nothing)


@contextmanager
def manager() -> Iterator[Peer]:
    with _NothingManager(ctx=SPAWN) as running:
        nothing = running.Nothing()  # type: ignore[attr-defined]
        yield Peer(nothing.noop, nothing.pid())


def _serve_rpyc(path: str) -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Service(rpyc.Service):  # type: ignore[misc]
        def exposed_noop(self) -> None:
            """Return at once."""

    ThreadedServer(Service, socket_path=path).start()


@contextmanager
def rpyc_connection(serve: Callable[[str], None], **options: Any) -> Iterator[tuple[Any, int]]:
    """A connection to a server of rpyc's that `serve(path)` runs, and its process."""
    with (
        tempfile.TemporaryDirectory(prefix="sp-rpyc-") as folder,
        process(serve, os.path.join(folder, "socket")) as server,
    ):
        connection = _connect_rpyc(os.path.join(folder, "socket"), options)
        yield connection, server.pid
        connection.close()
        server.terminate()


@contextmanager
def rpyc_server() -> Iterator[Peer]:
    with rpyc_connection(_serve_rpyc) as (connection, pid):
        # Fetched once, as kindly as spawny's own function.
        yield Peer(connection.root.noop, pid)


def _connect_rpyc(path: str, options: dict[str, Any]) -> Any:
    from rpyc.utils.factory import unix_connect

    # It binds, then listens, and tells nobody.
    deadline = time.monotonic() + RPYC_SECONDS
    while True:
        try:
            return unix_connect(path, **options)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- spawny, within a private home ----------------------------------------------------------------

_SCRIPT = """
class Nothing:
    def noop(self):
        pass

def noop():
    pass

nothing = Nothing()
"""


@contextmanager
def spawny_function() -> Iterator[Peer]:
    import spawny

    module = spawny.run_script(_SCRIPT)
    yield Peer(module.noop, spawny.daemon(module).pid)
    module.terminate_daemon()


@contextmanager
def spawny_method() -> Iterator[Peer]:
    import spawny

    nothing = spawny.run_script(_SCRIPT).nothing
    # Looked up for each call, as programs do.
    yield Peer(lambda: nothing.noop(), spawny.daemon(nothing).pid)
    nothing.terminate_daemon()
