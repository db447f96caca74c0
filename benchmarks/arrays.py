"""Arrays of numpy as arguments and as results: beside copying in memory, and the peers."""

from __future__ import annotations

import multiprocessing.connection
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import libraries
import numpy as np
import peers
from harness import Figure, Section, interleave, median_ratio, private_home

MB, GB = 1_000_000, 1_000_000_000

# (what, bytes, calls of one round, rounds of the full run)
SIZES = (
    ("1 KB", 1000, 200, 21),
    ("64 KB", 64_000, 200, 21),
    ("1 MB", MB, 50, 21),
    ("100 MB", 100 * MB, 2, 7),
    ("100 MB in 50 arrays", 100 * MB, 2, 7),
    ("1 GB", GB, 1, 3),
)
ARRAYS_OF_DICT = 50

MEMCPY, PIPE, SHARED, RPYC, RAY, SPAWNY = (
    "memcpy",
    "multiprocessing.Pipe",
    "SharedMemory by hand",
    "rpyc",
    "Ray",
    "spawny",
)
# What takes a second for 100 MB is not asked for more of it.
SLOW = {(RPYC, "1 GB"), (RPYC, "100 MB in 50 arrays"), (PIPE, "1 GB")}

METHOD_TEXT = (
    "Time of one call with an array as its argument, or as its result, in steady state: the median"
    " of the rounds. The other end reads one item of an argument; the array that comes as a result"
    " is let go before the next. `memcpy` is numpy's copy into an array that exists already, within"
    " one process: what shared memory cannot go below, since one copy is needed. `SharedMemory by"
    " hand` copies into one block that both ends keep open and tells of it through a pipe; nobody"
    " may keep what came in it. rpyc is asked to deliver and obtain copies."
)

_FOLDER = Path(__file__).parent

Call = Callable[[Any], object]
# An argument is sent, or (None) the result of that size is fetched.
Ends = tuple[Call, Callable[[str], object]]


def measure(scale: float = 1.0, sizes: tuple[str, ...] = ()) -> Iterator[Section]:
    """A section for arguments and one for results; `sizes` are those to measure, by default all."""
    chosen = [each for each in SIZES if not sizes or each[0] in sizes]
    arrays = {what: _array(what, size) for what, size, _, _ in chosen}
    with private_home(), ExitStack() as stack:
        ends: dict[str, Ends] = {MEMCPY: _memcpy(arrays)}
        for name, peer in _PEERS.items():
            if name not in (RPYC, RAY) or find_spec(name.lower()):
                ends[name] = stack.enter_context(peer(arrays))
        for direction, title in enumerate(("argument", "result")):
            yield _section(title, direction, ends, arrays, chosen, scale)


def _section(
    title: str,
    direction: int,
    ends: Mapping[str, Ends],
    arrays: Mapping[str, Any],
    chosen: list[tuple[str, int, int, int]],
    scale: float,
) -> Section:
    figures = []
    for what, size, calls, rounds in chosen:
        candidates = {
            name: _round(
                end[direction], what if direction else arrays[what], _calls(name, size, calls)
            )
            for name, end in ends.items()
            if (name, what) not in SLOW
        }
        for run in candidates.values():
            run()  # the first makes the segments, or whatever there is to be made
        times = interleave(candidates, max(3, int(rounds * scale)))
        unit, share = ("ms", 1000) if size > MB else ("µs", 1)
        figures += [
            Figure(name, statistics.median(each) / share, unit, column=what)
            for name, each in times.items()
        ]
        figures += [
            Figure(
                f"{SPAWNY} / {peer}",
                median_ratio(times[SPAWNY], times[peer]),
                "x",
                limit=_GOALS.get((what, title, peer)),
                column=what,
            )
            for peer in (MEMCPY, PIPE)
            if peer in times
        ]
    return Section(f"Arrays: {title}", METHOD_TEXT, tuple(figures))


# 0.7 times memcpy's speed is 1 / 0.7 of its time; 20 times that of a pipe is a twentieth.
_GOALS = {
    ("100 MB", "argument", MEMCPY): 1.43,
    ("100 MB", "argument", PIPE): 0.05,
}


def _calls(name: str, size: int, calls: int) -> int:
    return 1 if name in (PIPE, RPYC) and size > MB else calls


def _round(call: Callable[[Any], object], value: Any, calls: int) -> Callable[[], float]:
    def run() -> float:
        call(value)  # the others have had the caches since
        began = time.perf_counter_ns()
        for _ in range(calls):
            call(value)
        return (time.perf_counter_ns() - began) / 1000 / calls

    return run


def _array(what: str, size: int) -> Any:
    if "arrays" in what:
        share = size // ARRAYS_OF_DICT
        return {f"array {i}": np.full(share, i, dtype=np.uint8) for i in range(ARRAYS_OF_DICT)}
    return np.ones(size, dtype=np.uint8)


def _memcpy(arrays: Mapping[str, Any]) -> Ends:
    copies = {id(value): [each.copy() for each in _all_of(value)] for value in arrays.values()}

    def argument(value: Any) -> None:
        for target, source in zip(copies[id(value)], _all_of(value), strict=True):
            np.copyto(target, source)

    def result(what: str) -> None:
        argument(arrays[what])

    return argument, result


def _all_of(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


# --- spawny ---------------------------------------------------------------------------------------

_SCRIPT = """
import numpy
def read(value):
    array = value["array 7"] if type(value) is dict else value
    return int(array[-1])
results = {}
def prepare(what, size, count):
    share = size // count
    made = {"array %d" % i: numpy.full(share, i, dtype=numpy.uint8) for i in range(count)}
    results[what] = made if count > 1 else made["array 0"]
def get(what):
    return results[what]
"""


@contextmanager
def _spawny(arrays: Mapping[str, Any]) -> Iterator[Ends]:
    import spawny

    module: Any = spawny.run_script(_SCRIPT)
    for what, size, _, _ in SIZES:
        if what in arrays:
            module.prepare(what, size, ARRAYS_OF_DICT if "arrays" in what else 1)
    yield module.read, module.get
    module.terminate_daemon()


# --- the standard library -------------------------------------------------------------------------


def _serve_pipe(connection: multiprocessing.connection.Connection) -> None:
    results = {}
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if isinstance(request, tuple):
            results[request[0]] = _array(*request)
            connection.send(None)
        elif isinstance(request, str):
            connection.send(results[request])
        else:
            connection.send(int(_all_of(request)[-1][-1]))


@contextmanager
def _pipe(arrays: Mapping[str, Any]) -> Iterator[Ends]:
    ours, theirs = peers.SPAWN.Pipe()

    def ask(request: Any) -> Any:
        ours.send(request)
        return ours.recv()

    with peers.process(_serve_pipe, theirs):
        theirs.close()
        for what, size, _, _ in SIZES:
            if what in arrays:
                ask((what, size))
        yield ask, ask
        ours.close()


def _serve_shared(connection: multiprocessing.connection.Connection, name: str) -> None:
    memory = SharedMemory(name)
    results = {}
    while True:
        try:
            request = connection.recv()
        except EOFError:
            break
        if isinstance(request, tuple):
            results[request[0]] = _array(*request)
            connection.send(None)
        elif isinstance(request, str):
            connection.send(_into(memory, results[request]))
        else:
            connection.send(int(_out_of(memory, request)[-1][-1]))
    memory.close()


def _into(memory: SharedMemory, value: Any) -> list[int]:
    start, sizes = 0, []
    for each in _all_of(value):
        np.ndarray(each.shape, each.dtype, memory.buf, start)[...] = each
        sizes.append(each.nbytes)
        start += each.nbytes
    return sizes


def _out_of(memory: SharedMemory, sizes: list[int]) -> list[Any]:
    start, found = 0, []
    for size in sizes:
        found.append(np.ndarray(size, np.uint8, memory.buf, start))
        start += size
    return found


@contextmanager
def _shared(arrays: Mapping[str, Any]) -> Iterator[Ends]:
    ours, theirs = peers.SPAWN.Pipe()
    sizes = [size for what, size, _, _ in SIZES if what in arrays]
    memory = SharedMemory(create=True, size=max(sizes))

    def argument(value: Any) -> Any:
        ours.send(_into(memory, value))
        return ours.recv()

    def result(what: Any) -> None:
        ours.send(what)
        _out_of(memory, ours.recv())

    with peers.process(_serve_shared, theirs, memory.name):
        theirs.close()
        for what, size, _, _ in SIZES:
            if what in arrays:
                ours.send((what, size))
                ours.recv()
        yield argument, result
        ours.close()
    memory.close()
    memory.unlink()


# --- others ---------------------------------------------------------------------------------------


def _serve_rpyc(path: str) -> None:
    from rpyc.core.service import ClassicService
    from rpyc.utils.server import ThreadedServer

    ThreadedServer(ClassicService, socket_path=path).start()


@contextmanager
def _rpyc(arrays: Mapping[str, Any]) -> Iterator[Ends]:
    from rpyc.core.service import ClassicService
    from rpyc.utils import classic

    with libraries.rpyc_connection(_serve_rpyc, service=ClassicService) as (connection, _):
        connection.execute("import sys; sys.path[:0] = " + repr([str(_FOLDER)]))
        connection.execute("import arrays\nresults = {}")
        for what, size, _, _ in SIZES:
            if what in arrays:
                connection.execute(f"results[{what!r}] = arrays._array({what!r}, {size})")
        read = connection.eval("lambda value: int(arrays._all_of(value)[-1][-1])")
        results = connection.namespace["results"]
        yield (
            lambda value: read(classic.deliver(connection, value)),
            lambda what: classic.obtain(results[what]),
        )


@contextmanager
def _ray(arrays: Mapping[str, Any]) -> Iterator[Ends]:
    # Sixteen results of 100 MB fit, and one of 1 GB.
    with libraries.ray_runs(4 * GB) as ray:
        yield _ray_ends(ray, arrays)


def _ray_ends(ray: Any, arrays: Mapping[str, Any]) -> Ends:
    @ray.remote
    class Other:
        def __init__(self, sizes: Any) -> None:
            self.results = {what: _array(what, size) for what, size in sizes}

        def read(self, value: Any) -> int:
            return int(_all_of(value)[-1][-1])

        def get(self, what: str) -> Any:
            return self.results[what]

    other = Other.remote([(what, size) for what, size, _, _ in SIZES if what in arrays])
    ray.get(other.read.remote(np.ones(1)))
    return (
        lambda value: ray.get(other.read.remote(value)),
        lambda what: ray.get(other.get.remote(what)),
    )


_PEERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    SPAWNY: _spawny,
    PIPE: _pipe,
    SHARED: _shared,
    RPYC: _rpyc,
    RAY: _ray,
}
