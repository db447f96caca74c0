"""Clients that call without a pause, each a process, by the ways that throughput.py compares."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import libraries
import peers

# So many calls are made between two looks at the clock; they take turns among the servers.
FEW = 50
MANY = 1000

Noop = Callable[[], object]
# Makes all of these calls, and waits for the answers.
Calls = Callable[[Sequence[Noop]], None]


@dataclass(frozen=True)
class Kind:
    """What is called: so many servers, and their no-ops in a client that has their addresses."""

    serve: Callable[[ExitStack, int], list[Any]]
    noops: Callable[[Sequence[Any]], AbstractContextManager[list[Noop]]]


@dataclass(frozen=True)
class Way:
    """How it is called."""

    kind: Kind
    calls: Callable[[], AbstractContextManager[Calls]]
    at_a_time: int


@contextmanager
def client() -> Iterator[Connection]:
    """A client process. It is sent way and addresses, says when it is ready, is told for how many
    seconds it shall call, and says how many calls a second these were."""
    ours, theirs = peers.SPAWN.Pipe()
    with peers.process(_run, theirs):
        theirs.close()
        yield ours
        ours.close()


def _run(connection: Connection) -> None:
    while True:
        try:
            name, addresses = connection.recv()
        except EOFError:
            return
        way = WAYS[name]
        with way.kind.noops(addresses) as found, way.calls() as calls:
            noops = [found[i % len(found)] for i in range(way.at_a_time)]
            calls(noops)
            connection.send("ready")
            seconds = connection.recv()
            count, began = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - began) < seconds:
                calls(noops)
                count += len(noops)
            connection.send(count / elapsed)


# --- how ------------------------------------------------------------------------------------------


def _one_by_one(noops: Sequence[Noop]) -> None:
    for noop in noops:
        noop()


def _in_batches(noops: Sequence[Noop]) -> None:
    import spawny

    for each, times in _each(noops):  # a batch is for one daemon
        with spawny.batch() as batch:
            for _ in range(times):
                batch.call(each)


def _one_way(noops: Sequence[Noop]) -> None:
    import spawny

    for each, times in _each(noops):
        oneway = spawny.oneway(each)
        for _ in range(times):
            oneway()
    for each, _ in _each(noops):
        each()  # all have been carried out before this one is


def _each(noops: Sequence[Noop]) -> list[tuple[Noop, int]]:
    """Those of different daemons, and how often; equal proxies would be a question to a daemon."""
    numbers = Counter(map(id, noops))
    return [(each, numbers[id(each)]) for each in {id(each): each for each in noops}.values()]


def _submitted(noops: Sequence[Noop]) -> None:
    import spawny

    for future in [spawny.submit(noop) for noop in noops]:
        future.result()


def _asynchronous_of_rpyc(noops: Sequence[Noop]) -> None:
    import rpyc

    for result in [rpyc.async_(noop)() for noop in noops]:
        result.wait()


@contextmanager
def _one_by_one_without_spin() -> Iterator[Calls]:
    """The daemon's end spins still."""
    from spawny.kernel.spin import Spin

    before, Spin.receive = Spin.receive, lambda spin, reasons_to_stop=(): None
    yield _one_by_one
    Spin.receive = before


@contextmanager
def _gathered() -> Iterator[Calls]:
    import spawny

    async def gather(noops: Sequence[Noop]) -> None:
        await asyncio.gather(*(spawny.aio.call(noop) for noop in noops))

    with asyncio.Runner() as runner:
        yield lambda noops: runner.run(gather(noops))


def _just(calls: Calls) -> Callable[[], AbstractContextManager[Calls]]:
    @contextmanager
    def ready() -> Iterator[Calls]:
        yield calls

    return ready


# --- what -----------------------------------------------------------------------------------------


def _serve_spawny(stack: ExitStack, count: int) -> list[str]:
    import spawny

    names = [f"served-{number}" for number in range(count)]
    for name in names:
        stack.callback(spawny.run_script("def noop(): pass", name=name).terminate_daemon)
    return names


@contextmanager
def _spawny(names: Sequence[str]) -> Iterator[list[Noop]]:
    import spawny

    yield [spawny.attach(name).noop for name in names]


def _serve_managers(stack: ExitStack, count: int) -> list[Any]:
    return [
        stack.enter_context(peers.NothingManager(ctx=peers.SPAWN)).address for _ in range(count)
    ]


@contextmanager
def _managers(addresses: Sequence[Any]) -> Iterator[list[Noop]]:
    noops = []
    for address in addresses:
        # The key is that of the process that started us.
        manager = peers.NothingManager(address)
        manager.connect()
        noops.append(manager.Nothing().noop)  # type: ignore[attr-defined]
    yield noops


def _serve_rpyc(stack: ExitStack, count: int) -> list[str]:
    return [stack.enter_context(libraries.rpyc_server())[0] for _ in range(count)]


@contextmanager
def _rpyc(paths: Sequence[str]) -> Iterator[list[Noop]]:
    connections = [libraries.connect_rpyc(path) for path in paths]
    yield [each.root.noop for each in connections]
    for each in connections:
        each.close()


SPAWNY = Kind(_serve_spawny, _spawny)
MANAGERS = Kind(_serve_managers, _managers)
RPYC = Kind(_serve_rpyc, _rpyc)

WAYS = {
    "spawny, one by one": Way(SPAWNY, _just(_one_by_one), FEW),
    "spawny, one by one, the client does not spin": Way(SPAWNY, _one_by_one_without_spin, FEW),
    "spawny, in batches": Way(SPAWNY, _just(_in_batches), MANY),
    "spawny, one-way": Way(SPAWNY, _just(_one_way), MANY),
    "spawny, submitted": Way(SPAWNY, _just(_submitted), MANY),
    "spawny, asyncio": Way(SPAWNY, _gathered, MANY),
    "multiprocessing.managers": Way(MANAGERS, _just(_one_by_one), FEW),
    "rpyc, one by one": Way(RPYC, _just(_one_by_one), FEW),
    "rpyc, asynchronous": Way(RPYC, _just(_asynchronous_of_rpyc), FEW),
}
