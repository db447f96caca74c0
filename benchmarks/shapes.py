"""Calls in other shapes than one after the other, and what proxies do with them: beside rpyc."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import libraries
from harness import Figure, Section, interleave, median_ratio, private_home

CALLS = 500
ITEMS = 10_000
RPYC_INSPECTIONS = 10  # each takes many round trips
SPAWNY, RPYC = "spawny", "rpyc"

METHOD_TEXT = (
    f"Each figure is for one call of {CALLS}, or one item of {ITEMS}: the median of {{rounds}}"
    " rounds, beside rpyc, where it has the like. A callback is counted from the daemon here and"
    " back. What is gathered costs its task, too."
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
        shapes: dict[tuple[str, str], tuple[Shape, int]] = {}
        for who, started in ((SPAWNY, _spawny), (RPYC, _rpyc)):
            if find_spec(who):
                found = stack.enter_context(started())
                shapes |= {(shape, who): each for shape, each in found.items()}
        results = interleave(
            {name: _round(shape, count) for name, (shape, count) in shapes.items()}, rounds
        )
    figures = [
        Figure(shape, statistics.median(times), "µs", column=who)
        for (shape, who), times in results.items()
    ]
    figures += [
        Figure(shape, median_ratio(ours, theirs), "x", column=f"spawny / {RPYC}")
        for (shape, who), ours in results.items()
        if who == SPAWNY and (theirs := results.get((shape, RPYC))) is not None
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
    nothing = spawny.callback(_nothing)

    def one_by_one() -> None:
        for _ in range(CALLS):
            noop()

    def within_timeout() -> None:
        with spawny.timeout(60):
            one_by_one()

    async def gather() -> None:
        await asyncio.gather(*(spawny.aio.call(later) for _ in range(CALLS)))

    def inspected() -> None:
        for _ in range(CALLS):
            inspect.signature(documented)

    yield {
        "one by one": (one_by_one, CALLS),
        "within timeout()": (within_timeout, CALLS),
        "coroutines, gathered by asyncio": (lambda: asyncio.run(gather()), CALLS),
        "callback": (lambda: call_often(nothing, CALLS), CALLS),
        "items of a list": (lambda: sum(all_items), ITEMS),
        "items of a generator": (lambda: sum(numbers()), ITEMS),
        "inspect.signature": (inspected, CALLS),
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
    with libraries.rpyc_connection(_serve) as (connection, _):
        get = connection.root.get
        noop, call_often, numbers = get("noop"), get("call_often"), get("numbers")
        all_items, documented = get("all_items"), get("documented")

        def one_by_one() -> None:
            for _ in range(CALLS):
                noop()

        def inspected() -> None:
            for _ in range(RPYC_INSPECTIONS):
                inspect.signature(documented)

        yield {
            "one by one": (one_by_one, CALLS),
            "callback": (lambda: call_often(_nothing, CALLS), CALLS),
            "items of a list": (lambda: sum(all_items), ITEMS),
            "items of a generator": (lambda: sum(numbers()), ITEMS),
            "inspect.signature": (inspected, RPYC_INSPECTIONS),
        }
