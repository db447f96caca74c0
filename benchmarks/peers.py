"""The same no-op, called in another process by each of the ways there are.

Every peer is a context manager that gives a function which makes calls. Its other end is a fresh
process under the same interpreter (spawned, not forked, so that none inherits anything of
another's). What has to be installed first is in libraries.py.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from typing import Any

SPAWN = multiprocessing.get_context("spawn")


# So many calls make a round, or as many as fit into this time: enough for a steady median, and
# short enough that a round sees one load.
CALLS_PER_ROUND = 1000
SECONDS_PER_ROUND = 0.1


@dataclass(frozen=True)
class Peer:
    """Makes a round of calls and tells the nanoseconds of each; and the process that answers."""

    round: Callable[[], list[int]]
    pid: int


def timed(noop: Callable[[], object]) -> Callable[[], list[int]]:
    """What makes a round of calls of this, and tells what each took."""
    clock = time.perf_counter_ns

    def run() -> list[int]:
        for _ in range(10):  # both processes have slept since their last round
            noop()
        found = []
        end = clock() + int(SECONDS_PER_ROUND * 1e9)
        for _ in range(CALLS_PER_ROUND):
            began = clock()
            noop()
            ended = clock()
            found.append(ended - began)
            if ended > end:
                break
        return found

    return run


def nothing() -> None:
    """For those that send functions."""


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
        yield Peer(timed(noop), server.pid)
        ours.close()


# --- and what it gives to look before one sleeps, at both ends, as often as spawny does ----------

TRIES = 20


def _look(sock: socket.socket) -> bytes:
    """What comes; without sleeping if it comes at once."""
    for _ in range(TRIES):
        try:
            return sock.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            os.sched_yield()
    return sock.recv(65536)


def _serve_looking(sock: socket.socket) -> None:
    served = Nothing()
    while data := _look(sock):
        name, args, kwargs = pickle.loads(data)
        sock.sendall(pickle.dumps(getattr(served, name)(*args, **kwargs), pickle.HIGHEST_PROTOCOL))


@contextmanager
def looking_socket() -> Iterator[Peer]:
    ours, theirs = socket.socketpair()

    def noop() -> object:
        ours.sendall(pickle.dumps(("noop", (), {}), pickle.HIGHEST_PROTOCOL))
        return pickle.loads(_look(ours))

    with process(_serve_looking, theirs) as server:
        theirs.close()
        yield Peer(timed(noop), server.pid)
        ours.close()


# --- the standard library's ways ------------------------------------------------------------------


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
        yield Peer(timed(noop), server.pid)
        ours.close()


class NothingManager(BaseManager):
    """What is served, by the standard library's own server."""


NothingManager.register("Nothing", Nothing)


@contextmanager
def manager() -> Iterator[Peer]:
    with NothingManager(ctx=SPAWN) as running:
        served = running.Nothing()  # type: ignore[attr-defined]
        yield Peer(timed(served.noop), served.pid())


@contextmanager
def executor() -> Iterator[Peer]:
    with ProcessPoolExecutor(1, SPAWN) as pool:
        pid = pool.submit(os.getpid).result()
        yield Peer(timed(lambda: pool.submit(nothing).result()), pid)


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
    yield Peer(timed(module.noop), spawny.daemon(module).pid)
    module.terminate_daemon()


@contextmanager
def spawny_method() -> Iterator[Peer]:
    import spawny

    served = spawny.run_script(_SCRIPT).nothing
    # Looked up for each call, as programs do.
    yield Peer(timed(lambda: served.noop()), spawny.daemon(served).pid)
    served.terminate_daemon()
