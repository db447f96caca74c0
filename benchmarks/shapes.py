"""Calls in other shapes than one after the other, and what proxies do with them: beside rpyc."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import peers
from harness import Figure, Section, interleave, median_ratio, private_home

CALLS = 500
ITEMS = 10_000
RPYC_IN_FLIGHT = 50
RPYC_INSPECTIONS = 10  # each takes many round trips
RPYC = "rpyc"

METHOD_TEXT = (
    f"Each figure is for one call of {CALLS}, or one item of {ITEMS}: the median of {{rounds}}"
    f" rounds. Beside rpyc, where it has the like; of its asynchronous calls, {RPYC_IN_FLIGHT} are"
    " in flight at a time, since with hundreds both ends wait for each other. A callback is counted"
    " from the daemon here and back. What is submitted or gathered costs its Future or task, too."
)

SCRIPT = f"""
def noop():
    pass
def call_often(function, times):
    for _ in range(times):
        function()
def numbers():
    yield from range({ITEMS})
class Items:
    pass
items = Items()
items.all = list(range({ITEMS}))
all_items = items.all
def documented(a, b=1, *args, c, **kwargs):
    '''Documented.'''
async def later():
    pass
"""

Shape = Callable[[], object]


def measure(rounds: int) -> Section:
    """Microseconds for each shape, and the ratios to rpyc's."""
    with private_home(), ExitStack() as stack:
        shapes: dict[str, tuple[Shape, int]] = stack.enter_context(_spawny())
        if find_spec("rpyc"):
            shapes |= stack.enter_context(_rpyc())
        results = interleave(
            {name: _round(shape, count) for name, (shape, count) in shapes.items()}, rounds
        )
    figures = [Figure(name, statistics.median(times), "µs") for name, times in results.items()]
    figures += [
        Figure(f"{name} / {RPYC}", median_ratio(ours, theirs), "x")
        for name, ours in results.items()
        if (theirs := results.get(f"{name.removeprefix('spawny, ')} ({RPYC})")) is not None
    ]
    return Section("Calls in other shapes", METHOD_TEXT.format(rounds=rounds), tuple(figures))


def _round(shape: Shape, count: int) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter_ns()
        shape()
        return (time.perf_counter_ns() - began) / 1000 / count

    return run


def _nothing() -> None:
    pass


@contextmanager
def _spawny() -> Iterator[dict[str, tuple[Shape, int]]]:
    import asyncio

    import spawny

    module: Any = spawny.run_script(SCRIPT)
    noop, call_often, later = module.noop, module.call_often, module.later
    all_items, numbers, documented = module.all_items, module.numbers, module.documented
    oneway = spawny.oneway(noop)
    nothing = spawny.callback(_nothing)

    def one_by_one() -> None:
        for _ in range(CALLS):
            noop()

    def within_timeout() -> None:
        with spawny.timeout(60):
            one_by_one()

    def batch() -> None:
        with spawny.batch() as calls:
            for _ in range(CALLS):
                calls.call(noop)

    def oneways() -> None:
        for _ in range(CALLS):
            oneway()
        noop()

    def submit() -> None:
        for future in [spawny.submit(noop) for _ in range(CALLS)]:
            future.result()

    async def gather() -> None:
        await asyncio.gather(*(spawny.aio.call(later) for _ in range(CALLS)))

    def inspected() -> None:
        for _ in range(CALLS):
            inspect.signature(documented)

    yield {
        "spawny, one by one": (one_by_one, CALLS),
        "spawny, within timeout()": (within_timeout, CALLS),
        "spawny, in a batch": (batch, CALLS),
        "spawny, one-way": (oneways, CALLS),
        "spawny, submitted": (submit, CALLS),
        "spawny, coroutines gathered": (lambda: asyncio.run(gather()), CALLS),
        "spawny, callback": (lambda: call_often(nothing, CALLS), CALLS),
        "spawny, items of a list": (lambda: sum(all_items), ITEMS),
        "spawny, items of a generator": (lambda: sum(numbers()), ITEMS),
        "spawny, inspect.signature": (inspected, CALLS),
    }
    module.terminate_daemon()


def _serve(path: str) -> None:
    import rpyc
    from rpyc.utils.server import ThreadedServer

    namespace: dict[str, Any] = {}
    exec(SCRIPT, namespace)

    class Service(rpyc.Service):  # type: ignore[misc]
        def exposed_get(self, name: str) -> Any:
            return namespace[name]

    config = {"allow_all_attrs": True, "allow_public_attrs": True}
    ThreadedServer(Service, socket_path=path, protocol_config=config).start()


@contextmanager
def _rpyc() -> Iterator[dict[str, tuple[Shape, int]]]:
    import rpyc

    with peers.rpyc_connection(_serve) as (connection, _):
        get = connection.root.get
        noop, call_often, numbers = get("noop"), get("call_often"), get("numbers")
        all_items, documented = get("all_items"), get("documented")
        later = rpyc.async_(noop)

        def one_by_one() -> None:
            for _ in range(CALLS):
                noop()

        def asynchronous() -> None:
            for _ in range(CALLS // RPYC_IN_FLIGHT):
                for result in [later() for _ in range(RPYC_IN_FLIGHT)]:
                    result.wait()

        def inspected() -> None:
            for _ in range(RPYC_INSPECTIONS):
                inspect.signature(documented)

        yield {
            f"one by one ({RPYC})": (one_by_one, CALLS),
            f"submitted ({RPYC})": (asynchronous, CALLS),
            f"callback ({RPYC})": (lambda: call_often(_nothing, CALLS), CALLS),
            f"items of a list ({RPYC})": (lambda: sum(all_items), ITEMS),
            f"items of a generator ({RPYC})": (lambda: sum(numbers()), ITEMS),
            f"inspect.signature ({RPYC})": (inspected, RPYC_INSPECTIONS),
        }
