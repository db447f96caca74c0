"""The same no-op by libraries that have to be installed: peers.py has the rest.

Each is a function of the library's name in `LIBRARIES`; it is asked only where that imports.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import peers
from peers import Peer, timed

# A server that cannot be reached within this time did not start.
PATIENCE_SECONDS = 20.0


def available() -> dict[str, Callable[[], Any]]:
    """The peers whose libraries are installed, by what they are called."""
    return {title: peer for title, (name, peer) in LIBRARIES.items() if find_spec(name)}


# --- rpyc -----------------------------------------------------------------------------------------


def _serve_rpyc(path: str) -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Service(rpyc.Service):  # type: ignore[misc]
        def exposed_noop(self) -> None:
            """Return at once."""

    ThreadedServer(Service, socket_path=path).start()


@contextmanager
def rpyc_connection(
    serve: Callable[[str], None] = _serve_rpyc, **options: Any
) -> Iterator[tuple[Any, int]]:
    """A connection to a server of rpyc's that `serve(path)` runs, and its process."""
    with rpyc_server(serve) as (path, pid):
        connection = connect_rpyc(path, **options)
        yield connection, pid
        connection.close()


@contextmanager
def rpyc_server(serve: Callable[[str], None] = _serve_rpyc) -> Iterator[tuple[str, int]]:
    """Where it listens, before long; and its process."""
    with tempfile.TemporaryDirectory(prefix="sp-rpyc-") as folder:
        path = os.path.join(folder, "socket")
        with peers.process(serve, path) as server:
            yield path, server.pid
            server.terminate()


def connect_rpyc(path: str, **options: Any) -> Any:
    """A connection, once somebody listens there."""
    from rpyc.utils.factory import unix_connect

    return _once_it_listens(lambda: unix_connect(path, **options))


def _once_it_listens(connect: Callable[[], Any]) -> Any:
    # They bind, then listen, and tell nobody.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _rpyc() -> Iterator[Peer]:
    with rpyc_connection() as (connection, pid):
        # Fetched once, as kindly as spawny's own function.
        yield Peer(timed(connection.root.noop), pid)


# --- the others -----------------------------------------------------------------------------------


@contextmanager
def _execnet() -> Iterator[Peer]:
    import execnet

    group = execnet.Group()
    gateway = group.makegateway(f"popen//python={sys.executable}")
    channel = gateway.remote_exec("for each in channel: channel.send(None)")

    def noop() -> object:
        channel.send(None)
        return channel.receive()

    yield Peer(timed(noop), gateway._rinfo().pid)
    group.terminate(timeout=PATIENCE_SECONDS)


def _serve_pyro(path: str) -> None:
    from Pyro5.api import Daemon, expose

    with Daemon(unixsocket=path) as daemon:
        daemon.register(expose(peers.Nothing), "nothing")
        daemon.requestLoop()


@contextmanager
def _pyro() -> Iterator[Peer]:
    from Pyro5.api import Proxy
    from Pyro5.errors import CommunicationError

    def connect() -> Any:
        proxy = Proxy(f"PYRO:nothing@./u:{path}")
        try:
            proxy._pyroBind()
        except CommunicationError as error:
            raise OSError(str(error)) from error
        return proxy

    with tempfile.TemporaryDirectory(prefix="sp-pyro-") as folder:
        path = os.path.join(folder, "socket")
        with peers.process(_serve_pyro, path) as server, _once_it_listens(connect) as proxy:
            yield Peer(timed(proxy.noop), server.pid)
            server.terminate()


@contextmanager
def _mitogen() -> Iterator[Peer]:
    from mitogen.master import Broker, Router

    broker = Broker()
    context = Router(broker).local(python_path=sys.executable)
    # Their importer would send them a function of ours, file and all; of these it has its own.
    yield Peer(timed(lambda: context.call(os.getpid)), context.call(os.getpid))
    broker.shutdown()
    broker.join()


@contextmanager
def _loky() -> Iterator[Peer]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        pid = pool.submit(os.getpid).result()
        yield Peer(timed(lambda: pool.submit(peers.nothing).result()), pid)


@contextmanager
def ray_runs(object_store_bytes: int) -> Iterator[Any]:
    """The module, while its processes run."""
    import logging

    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


@contextmanager
def _ray() -> Iterator[Peer]:
    with ray_runs(100_000_000) as ray:
        actor = ray.remote(peers.Nothing).remote()
        yield Peer(timed(lambda: ray.get(actor.noop.remote())), ray.get(actor.pid.remote()))


@contextmanager
def _dask() -> Iterator[Peer]:
    from distributed import Client

    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        actor = client.submit(peers.Nothing, actor=True).result()
        yield Peer(timed(lambda: actor.noop().result()), actor.pid().result())


# What to look for, and how to get it.
LIBRARIES = {
    "rpyc": ("rpyc", _rpyc),
    "execnet": ("execnet", _execnet),
    "Pyro5": ("Pyro5", _pyro),
    "mitogen": ("mitogen", _mitogen),
    "loky": ("loky", _loky),
    "Ray actor": ("ray", _ray),
    "Dask actor": ("distributed", _dask),
}
